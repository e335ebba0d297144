"""``python -m tests.fuzz``: at least 100,000 damaged inputs; prints how many, and what became of them."""

import argparse
import tempfile
import time
from pathlib import Path

from tests.faults.parts import Parts
from tests.fuzz import data_sets, door
from tests.tiny_network import write_weights


def main() -> None:
    """Fuzz the reader in this process and the door of a receiver of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--data-sets", type=int, default=95_000)
    parser.add_argument("--door", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    began = time.monotonic()
    ends = data_sets.damage(chosen.data_sets, chosen.seed, Path("fuzz-findings"))
    print(f"{chosen.data_sets} data sets in {time.monotonic() - began:.0f} s: {dict(ends)}")
    with tempfile.TemporaryDirectory(prefix="sonomark-fuzz-") as folder:
        house = Parts(Path(folder) / "data", Path(folder) / "logs", {"NETWORK": str(write_weights(Path(folder)))})
        house.migrate()
        try:
            house.start("receive")
            began = time.monotonic()
            ends = door.damage(house, chosen.door, chosen.seed)
            outside = [path for path in Path(folder).rglob("*") if path.is_file() and not _expected(path, house)]
        finally:
            house.stop()
    assert not outside, outside
    print(f"{chosen.door} inputs to the door in {time.monotonic() - began:.0f} s: {dict(sorted(ends.items()))}")
    print(f"{chosen.data_sets + chosen.door} inputs: no crash, no hang, no file outside of the archive")


def _expected(path: Path, house: Parts) -> bool:
    """The archive, the database, the queue, the test's own files."""
    known = (house.archive_folder, house.data / "spool", house.logs)
    ours = path.name in ("model.onnx", "card.toml") or path.name.startswith("sonomark.sqlite")
    return ours or any(folder in path.parents for folder in known)


if __name__ == "__main__":
    main()
