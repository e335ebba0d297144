"""Copies what waits in the journal for files of its own: of each lane what its records take. Needs Python alone.

python3 deploy/journal.py ARCHIVE/journal TARGET

A journal may take a gigabyte, and nearly all of it are lanes that wait for a burst, or images that were filed long ago.
Receivers may write meanwhile: a lane begins anew only when all that was in it lies among the instances, which a backup
copies afterwards, and a record that was copied while it was written over fails its digest when it is filed.
"""

import mmap
import os
import struct
import sys
from pathlib import Path
from zlib import crc32

# As in service/archive/lanes.py: magic, generation, octets of the DICOM file and in front of its data set, digest.
HEAD = struct.Struct("<8s16sQI32s")
MAGIC = b"SONOLANE"
HEAD_BYTES = 128
AT_ONCE = 1 << 20


def end_of_records(lane: int) -> int:
    """Where the last record ends that nobody has given up; 0 when there is none."""
    position, generation, end = 0, None, 0
    while True:
        raw = os.pread(lane, HEAD_BYTES, position)
        if len(raw) < HEAD_BYTES or raw[: len(MAGIC)] != MAGIC:
            return end
        if struct.unpack_from("<I", raw, HEAD.size)[0] != crc32(raw[: HEAD.size]):
            return end
        _, its_generation, octets, _, _ = HEAD.unpack_from(raw)
        if generation not in (None, its_generation):
            return end
        generation, stop = its_generation, position + HEAD_BYTES + octets
        if not raw[-1]:
            end = stop
        position = -(-stop // mmap.PAGESIZE) * mmap.PAGESIZE


def copied(source: Path, target: Path) -> int:
    """Copy a lane's records; how many bytes that were."""
    try:
        lane = os.open(source, os.O_RDONLY)
    except FileNotFoundError:  # its receiver gave it back meanwhile: all of it is filed
        return 0
    try:
        end = end_of_records(lane)
        if end:
            with target.open("wb") as file:
                for start in range(0, end, AT_ONCE):
                    file.write(os.pread(lane, min(AT_ONCE, end - start), start))
        return end
    finally:
        os.close(lane)


def main(journal: Path, target: Path) -> None:
    """Copy what waits in any lane."""
    target.mkdir(parents=True, exist_ok=True)
    taken = [copied(lane, target / lane.name) for lane in sorted(journal.glob("*.lane"))]
    sys.stdout.write(f"{len(taken)} lanes, {sum(map(bool, taken))} with records, {sum(taken)} bytes copied.\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python3 deploy/journal.py ARCHIVE/journal TARGET")
    if not Path(sys.argv[1]).is_dir():
        sys.exit(f"There is no folder {sys.argv[1]}.")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
