"""P1 and P6: what was acknowledged outlives SIGKILL, wherever and whenever it strikes, and is there once.

One house for all failpoints: worker and sweeper stay up, the receiver is felled again and again.
"""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import psutil
import pytest

from tests.faults import checkers
from tests.faults.images import Image, image, numbered
from tests.faults.ledger import Ledger
from tests.faults.parts import Parts
from tests.faults.points import failpoints, victim
from tests.faults.sender import OUT_OF_RESOURCES, SUCCESS, Load, send

pytestmark = pytest.mark.acceptance
SMALL = ((64, 56), (128, 96))
IMAGES_EACH = 6
ROUNDS = 50
MakeParts = Callable[..., Parts]


# Passed by what is no C-STORE; `tests/receive/test_commitment` kills there.
ELSEWHERE = {"receive.before_report"}


def points_of(part: str) -> list[str]:
    return [point for point in failpoints() if victim(point) == part and point not in ELSEWHERE]


@pytest.fixture
def house(make_parts: MakeParts) -> Iterator[Parts]:
    parts = make_parts()
    parts.start("work")
    parts.start("sweep")
    yield parts


@pytest.mark.timeout(600)
def test_killed_at_every_point_of_the_door(house: Parts, seed: int) -> None:
    """Hit 1, 2 and last of each failpoint; senders then try again until all is acknowledged."""
    ledger = house.new_ledger("points")
    images = numbered(seed, SMALL)
    struck = set()
    for point in points_of("receive"):
        for hit in (1, 2, IMAGES_EACH):
            house.start("receive", FAILPOINTS=f"{point}=kill@{hit}")
            batch = list(islice(images, IMAGES_EACH))
            send(house.dicom_port, ledger, batch)
            # Some points lie behind the answer: the door files what it has acknowledged when it is quiet.
            if _died(house):
                struck.add((point, hit))
            else:
                house.kill("receive")
            house.start("receive")
            _until_acknowledged(house, ledger, batch)
            house.kill("receive")
    # A passage may serve several instances, so not every point is passed as often as there are images.
    assert {point for point, _ in struck} == set(points_of("receive")), (
        f"never struck at some of {points_of('receive')}"
    )
    house.start("receive")
    checkers.settled(ledger, house.inventory, 120)


def _died(house: Parts) -> bool:
    """Whether the failpoint took the receiver, or a process of its, with it."""
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        if not house.runs("receive"):
            house.gone("receive")
            return True
        if any("zombie" in child.status() for child in psutil.Process(house.processes["receive"].pid).children()):
            house.kill("receive")
            return True
        time.sleep(0.05)
    return False


def _until_acknowledged(house: Parts, ledger: Ledger, batch: list[Image]) -> None:
    deadline = time.monotonic() + 60
    while batch:
        answers = send(house.dicom_port, ledger, batch)
        batch = [one for one, status in zip(batch, answers, strict=True) if status != SUCCESS]
        assert time.monotonic() < deadline, f"never acknowledged; {house.tails()}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["work", "sweep"])
def test_killed_at_every_point_of_the_house(make_parts: MakeParts, part: str, seed: int) -> None:
    """The worker and the sweeper at each of their failpoints: one verdict each all the same."""
    house = make_parts(LEASE_S="1", MAX_ATTEMPTS="20")
    ledger = house.new_ledger(part)
    images = numbered(seed, SMALL)
    house.start("receive")
    for point in points_of(part):
        for hit in (1, 2):
            if part == "sweep":  # its only work is what a worker left behind
                house.start("work", FAILPOINTS="analyse.before_infer=kill@1+")
            before = _deaths(house)
            house.start(part, FAILPOINTS=f"{point}=kill@{hit}")
            _until_acknowledged(house, ledger, list(islice(images, 4)))
            deadline = time.monotonic() + 20
            while house.runs(part) and (part == "sweep" or _deaths(house) == before) and time.monotonic() < deadline:
                if part == "work":  # which claims a few together and passes most points once for all of them
                    _until_acknowledged(house, ledger, list(islice(images, 1)))
                time.sleep(0.1)
            assert not house.runs(part) or _deaths(house) > before, f"{point}@{hit} never struck; {house.tails()}"
            for one in {"work", part}:
                house.kill(one)
    house.start("work")
    house.start("sweep")
    checkers.settled(ledger, house.inventory, 120)


def _deaths(house: Parts) -> int:
    """How often the crew of workers has put another in the place of a fallen one."""
    log = house.log("work")
    return log.read_text().count("a worker process died") if log.exists() else 0


@pytest.mark.timeout(900)
def test_killed_at_fifty_random_moments_under_load(house: Parts, seed: int) -> None:
    """{acknowledged} ⊆ {archive ∩ database}, digests equal, one verdict each; a second client watches the dashboard."""
    moments = random.Random(seed)
    ledger = house.new_ledger("random")
    house.start("review")
    house.start("receive")
    with checkers.Reader(house.http_port, house.token(), ledger) as reader:
        with Load(house.dicom_port, ledger, seed, associations=3, pause_s=0.3) as load:
            for _ in range(ROUNDS):
                time.sleep(moments.uniform(0.05, 0.5))
                house.kill("receive")
                house.start("receive")
        _until_acknowledged(house, ledger, load.unsent)
        inventory = checkers.settled(ledger, house.inventory, 240)
        reader.confirm()
    acknowledged = ledger.history().acknowledged
    print(f"{len(acknowledged)} acknowledged through {ROUNDS} kills, {reader.looks} looks at the dashboard")
    assert len(acknowledged) > ROUNDS and reader.looks > ROUNDS
    assert {one.version for one in inventory.held} >= acknowledged


def test_the_same_instance_again_and_again(house: Parts, seed: int) -> None:
    """Twice in a row, from eight senders at once, killed in between, with other content, in another series."""
    ledger = house.new_ledger("again")
    house.start("receive")
    same = image()
    assert send(house.dicom_port, ledger, [same, same]) == [SUCCESS, SUCCESS]
    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(lambda _: send(house.dicom_port, ledger, [same, same]), range(8)))
    assert answers == [[SUCCESS, SUCCESS]] * 8
    house.kill("receive")
    house.start("receive")
    other_content = image(same.uid)
    other_series = image(same.uid, SeriesInstanceUID="2.25.77")
    fresh = [image() for _ in range(4)]
    with ThreadPoolExecutor(8) as senders:
        batches = [[other_content, same], [other_series], [same], [other_content], *[[one, one] for one in fresh]]
        answers = list(senders.map(lambda batch: send(house.dicom_port, ledger, batch), batches))
    assert {status for batch in answers for status in batch} == {SUCCESS}
    inventory = checkers.settled(ledger, house.inventory, 60)
    held = {one.version: one for one in inventory.held}
    versions = [same.version, other_content.version, other_series.version]
    assert all(held[version].conflict for version in versions)
    assert not any(held[one.version].conflict for one in fresh)
    assert len(held) == 3 + len(fresh)


def test_killed_between_two_sends_of_the_same_instance(house: Parts, seed: int) -> None:
    ledger = house.new_ledger("between")
    same, other = image(), image()
    twin = image(same.uid)
    for point in ("receive.before_commit", "receive.before_ack"):
        house.start("receive", FAILPOINTS=f"{point}=kill@2")
        answers = send(house.dicom_port, ledger, [same, twin, other])
        assert SUCCESS in answers or answers[0] is None
        house.kill("receive")
    house.start("receive")
    _until_acknowledged(house, ledger, [same, twin, other])
    held = {one.version: one for one in checkers.settled(ledger, house.inventory).held}
    assert set(held) == {same.version, twin.version, other.version}
    assert held[same.version].conflict and held[twin.version].conflict and not held[other.version].conflict
    assert OUT_OF_RESOURCES not in sum(ledger.history().statuses.values(), ())
