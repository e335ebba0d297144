"""Verifies an archive by itself: every instance's data set still has the digest that is its name. Needs Python alone.

python3 deploy/verify.py ARCHIVE
"""

import hashlib
import struct
import sys
from pathlib import Path

HEAD = 132 + 12  # preamble, prefix and the File Meta Information Group Length (PS3.10 section 7.1)


def digest(path: Path) -> str | None:
    """SHA-256 of the data set behind the file's head; None when there is no such head."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if len(head) < HEAD or head[128:132] != b"DICM":
            return None
        (length,) = struct.unpack("<I", head[-4:])
        file.seek(HEAD + length)
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(archive: Path) -> int:
    """Say what is damaged; 0 when nothing is, 2 when this is no archive."""
    if not (archive / "instances").is_dir():
        sys.stderr.write(f"{archive} is no archive: it has no folder `instances`.\n")
        return 2
    instances = sorted((archive / "instances").rglob("*.dcm"))
    damaged = [path for path in instances if digest(path) != path.stem]
    for path in damaged:
        sys.stderr.write(f"damaged: {path}\n")
    sys.stdout.write(f"{len(instances)} instances, {len(damaged)} damaged.\n")
    return 1 if damaged else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 deploy/verify.py ARCHIVE")
    sys.exit(main(Path(sys.argv[1])))
