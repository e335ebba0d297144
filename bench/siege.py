"""Fifty associations at once for five minutes, sizes mixed: nothing refused that should not be, nothing lost.

``python -m bench.siege [--seconds 300] [--associations 50]`` starts a receiver of its own and prints what it took.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.faults import checkers
from tests.faults.images import Image, image
from tests.faults.ledger import Ledger
from tests.faults.parts import Parts
from tests.faults.sender import Association, record

SIZES = ((64, 56), (128, 96), (320, 240), (640, 480), (800, 600), (1600, 1200))  # 11 KB to 5.8 MB, uncompressed
WEIGHTS = (30, 30, 20, 12, 6, 2)
PER_ASSOCIATION = (1, 40)


def main() -> None:
    """Besiege a receiver and look at everything it has."""
    parser = argparse.ArgumentParser(prog="python -m bench.siege", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--associations", type=int, default=50)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sonomark-siege-") as folder:
        # All carts share one address here; in a hospital each has its own.
        settings = {"MAX_ASSOCIATIONS_PER_ADDRESS": str(chosen.associations + 10)}
        settings["MAX_ASSOCIATIONS"] = str(max(64, chosen.associations + 10))
        house = Parts(Path(folder) / "data", Path(folder) / "logs", settings).migrate()
        try:
            besiege(house, chosen.seconds, chosen.associations)
        finally:
            house.stop()


def besiege(house: Parts, seconds: float, associations: int) -> None:
    """Print rates, statuses and memory; raise AssertionError when anything acknowledged is not there."""
    ledger = house.new_ledger("siege")
    receiver = psutil.Process(house.start("receive"))
    memory: list[int] = []
    ends = time.monotonic() + seconds
    with ThreadPoolExecutor(associations) as senders:
        running = [senders.submit(_send, house.dicom_port, ledger, seed, ends) for seed in range(associations)]
        while not all(one.done() for one in running):
            memory.append(receiver.memory_info().rss >> 20)
            time.sleep(0.5)
        statuses = sum((one.result() for one in running), Counter[str]())
    history = ledger.history()
    cpu = sum(receiver.cpu_times()[:2])
    print(f"{associations} associations at once for {seconds:.0f} s: {dict(statuses)}")
    print(f"{len(history.acknowledged) / seconds:.0f} acknowledged instances/s; receiver: {cpu / seconds:.2f} cores,")
    print(f"at most {max(memory)} MB resident, {receiver.num_threads()} threads at the end")
    house.terminate("receive")
    inventory = house.inventory()
    checkers.no_loss(ledger, inventory)
    checkers.no_invention(ledger, inventory)
    assert set(statuses) == {"0x0000"}, "something was refused or left without an answer"
    print(f"{len(inventory.held)} instances in archive and database, every digest as it was sent; none refused")


def _send(port: int, ledger: Ledger, seed: int, ends: float) -> Counter[str]:
    """One cart after another, each with some images, until time is up."""
    drawn = random.Random(seed)
    statuses: Counter[str] = Counter()
    while time.monotonic() < ends:
        images = [_image(drawn) for _ in range(drawn.randint(*PER_ASSOCIATION))]
        try:
            association = Association(port, [(one.sop_class, one.syntax) for one in images], timeout=60)
        except OSError as error:
            statuses[f"no association: {type(error).__name__}"] += 1
            continue
        for one in images:
            status = record(association, ledger, one)
            statuses["no answer" if status is None else f"0x{status:04X}"] += 1
            if status is None or time.monotonic() > ends:
                break
        association.close() if status is None else association.release()
    return statuses


def _image(drawn: random.Random) -> Image:
    columns, rows = drawn.choices(SIZES, WEIGHTS)[0]
    return image(columns=columns, rows=rows)


if __name__ == "__main__":
    main()
