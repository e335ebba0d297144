"""P4, P7 and P10: database or broker away, locked or frozen, and clocks that jump; the sender always hears in time."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import checkers
from tests.faults.images import Image, image
from tests.faults.ledger import Ledger
from tests.faults.parts import Parts
from tests.faults.sender import OUT_OF_RESOURCES, SUCCESS, Load, send
from tests.faults.servers import Postgres, Redis

pytestmark = pytest.mark.acceptance
MakeParts = Callable[..., Parts]
SENDERS_PATIENCE_S = 30.0  # what carts commonly wait for a C-STORE response


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


def test_a_locked_database_is_said_in_time(make_parts: MakeParts) -> None:
    house = make_parts()
    ledger = house.new_ledger("locked")
    house.start("receive")
    other = sqlite3.connect(house.data / "sonomark.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    images = [image() for _ in range(2)]
    _refused_in_time(house, ledger, images[:1])
    other.rollback()
    other.close()
    _recovers(house, ledger, images)


@pytest.fixture
def on_postgres(make_parts: MakeParts, postgres: Postgres) -> Parts:
    house = make_parts(DATABASE_URL=postgres.url())
    house.migrate()
    house.start("receive")
    return house


def test_a_crashed_postgres_is_said_in_time(on_postgres: Parts, postgres: Postgres) -> None:
    house, ledger = on_postgres, on_postgres.new_ledger("crashed")
    images = [image() for _ in range(3)]
    assert send(house.dicom_port, ledger, images[:1]) == [SUCCESS]
    postgres.stop_immediately()
    try:
        _refused_in_time(house, ledger, images[1:])
    finally:
        postgres.start()
    assert send(house.dicom_port, ledger, images) == [SUCCESS] * 3
    checkers.no_loss(ledger, house.inventory())


@pytest.fixture
def postgres_of_its_own() -> Iterator[Postgres]:
    """For a test that looks at all that there is: others leave rows in the one they share."""
    server = Postgres()
    yield server
    server.remove()


def test_backends_of_postgres_killed_under_load(
    make_parts: MakeParts, postgres_of_its_own: Postgres, seed: int
) -> None:
    """What was on its way is refused or unanswered; what was acknowledged is there, and the door opens by itself."""
    house = make_parts(DATABASE_URL=postgres_of_its_own.url())
    house.migrate()
    ledger = house.new_ledger("backends")
    house.start("receive")
    house.start("work")
    house.start("sweep")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    checkers.settled(ledger, house.inventory, 60)  # they are all up, which a start without a database is not
    with Load(house.dicom_port, ledger, seed, associations=2, pause_s=0.1) as load:
        for _ in range(6):
            time.sleep(1.5)
            postgres_of_its_own.kill_a_backend()
    postgres_of_its_own.recover()  # it is this test that looks at once, and is no sender that tries again
    waiting = load.unsent
    deadline = time.monotonic() + 60
    while waiting:
        answers = send(house.dicom_port, ledger, waiting)
        waiting = [one for one, status in zip(waiting, answers, strict=True) if status != SUCCESS]
        assert time.monotonic() < deadline, house.tails()
    inventory = checkers.settled(ledger, house.inventory, 120)
    acknowledged = ledger.history().acknowledged
    assert len(acknowledged) > 10
    assert {one.version for one in inventory.held} >= acknowledged


def test_a_frozen_postgres_is_said_in_time(on_postgres: Parts, postgres: Postgres) -> None:
    """It takes connections and questions, and answers none."""
    house, ledger = on_postgres, on_postgres.new_ledger("frozen")
    images = [image() for _ in range(2)]
    assert send(house.dicom_port, ledger, images[:1]) == [SUCCESS]
    postgres.freeze()
    try:
        _refused_in_time(house, ledger, images[1:])
    finally:
        postgres.thaw()
    assert send(house.dicom_port, ledger, images) == [SUCCESS] * 2
    checkers.no_loss(ledger, house.inventory())


def test_a_broker_that_is_away_holds_no_sender_up(make_parts: MakeParts, tmp_path: Path) -> None:
    server = Redis(tmp_path)
    try:
        house = make_parts(BROKER_URL=server.url)
        ledger = house.new_ledger("broker")
        for part in ("receive", "work", "sweep"):
            house.start(part)
        assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
        server.kill()
        began = time.monotonic()
        assert send(house.dicom_port, ledger, [image() for _ in range(5)]) == [SUCCESS] * 5
        assert time.monotonic() - began < SENDERS_PATIENCE_S
        server.start()
        checkers.settled(ledger, house.inventory, 120)
    finally:
        server.kill()


def test_clocks_that_jump_change_no_outcome(make_parts: MakeParts, tmp_path: Path) -> None:
    """Three days ahead and an hour back while twenty instances are on their way: nobody's lease is taken away."""
    house = make_parts(LEASE_S="5")
    ledger = house.new_ledger("clock")
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    for part in ("receive", "work", "sweep"):
        house.start(part, **_fake_time(offset))
    for jump in ("+0", "+3d", "-1h", "+0"):
        offset.write_text(f"{jump}\n")
        assert send(house.dicom_port, ledger, [image() for _ in range(5)]) == [SUCCESS] * 5
        time.sleep(0.5)
    offset.write_text("+3d\n")  # what was received before waits on for as long as its study settles, by either clock
    inventory = checkers.settled(ledger, house.inventory, 60)
    assert len(inventory.held) == 20
    assert {one.attempts for one in inventory.held} == {1}


def _fake_time(offset: Path) -> dict[str, str]:
    folder = Path(pytest.importorskip("libfaketime").__file__).parent
    library = next(iter(folder.rglob("libfaketime.so.1")), None)
    if library is None:
        pytest.skip("this libfaketime brings no libfaketime.so.1")
    return {
        "_LD_PRELOAD": str(library),
        "_FAKETIME_TIMESTAMP_FILE": str(offset),
        "_FAKETIME_NO_CACHE": "1",
        "_FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _refused_in_time(house: Parts, ledger: Ledger, images: list[Image]) -> None:
    for one in images:
        began = time.monotonic()
        assert send(house.dicom_port, ledger, [one]) == [OUT_OF_RESOURCES]
        assert time.monotonic() - began < SENDERS_PATIENCE_S
    inventory = house.inventory() if "sqlite" in house.database_url else None
    if inventory is not None:
        checkers.no_loss(ledger, inventory)


def _recovers(house: Parts, ledger: Ledger, images: list[Image]) -> None:
    house.start("work")
    house.start("sweep")
    assert send(house.dicom_port, ledger, images) == [SUCCESS] * len(images)
    checkers.settled(ledger, house.inventory, 60)
