"""Short faults, each with the promise that it tries: the true product passes all, and each mutant falls to one.

A challenge takes a house of its own, none of whose parts runs, and raises AssertionError when a promise is broken.
"""

import signal
import time
from pathlib import Path

from service.db.tables import AnalysisState
from tests.faults import checkers, tracing
from tests.faults.images import image
from tests.faults.ledger import Ledger
from tests.faults.parts import Parts
from tests.faults.sender import OUT_OF_RESOURCES, SUCCESS, Association, record, send

SOON_S = 25.0


def order_of_syncs(house: Parts) -> None:
    """Bytes, names and commit are on disk when the status goes out."""
    tracing.require_strace()
    trace = house.logs / "trace"
    house.start("receive", prefix=tracing.recording(trace))
    assert send(house.dicom_port, house.new_ledger("order"), [image() for _ in range(5)]) == [SUCCESS] * 5
    house.kill("receive")
    answers = tracing.answers(trace, house.data)
    assert len(answers) == 5, f"{len(answers)} answers of threads that had written something"
    for answer in answers:
        assert not answer.unsynced, f"an answer went out before these were on disk: {answer.unsynced}"
        synced = {Path(path).name for path in answer.synced}
        assert "sonomark.sqlite-wal" in synced and len(synced) > 1, f"synced were {synced} alone"


def filed_before_recycling(house: Parts) -> None:
    """A lane of the journal begins anew only when what was in it has files, names and folders on disk."""
    tracing.require_strace()
    trace = house.logs / "trace"
    house.start("receive", prefix=tracing.recording(trace))
    ledger = house.new_ledger("filing")
    assert send(house.dicom_port, ledger, [image() for _ in range(5)]) == [SUCCESS] * 5
    deadline = time.monotonic() + SOON_S
    while not (found := tracing.unfiled_at_recycling(trace, house.archive_folder))[0]:
        assert time.monotonic() < deadline, "no lane was ever used again"
        time.sleep(0.2)
    house.kill("receive")
    assert not found[1], f"a lane began anew before these were on disk: {found[1]}"
    checkers.no_loss(ledger, house.inventory())


def short_writes(house: Parts) -> None:
    """Now and then the kernel says that it wrote 100 bytes, and wrote none: never Success."""
    tracing.require_strace()
    ledger = house.new_ledger("short")
    pid = house.start("receive")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    # SQLite looks after its own files; the archive's are the question. Its files that are open already are named,
    # and where it has none it writes new ones, with `write`.
    journal = list(house.archive_folder.rglob("*.lane"))
    with tracing.window(pid, "write,pwritev,pwritev2" if journal else "write", "retval=100:when=5+5", only=journal):
        answers = send(house.dicom_port, ledger, [image(columns=800, rows=600)])
    assert answers == [OUT_OF_RESOURCES], answers
    house.kill("receive")
    house.start("receive")
    checkers.no_loss(ledger, house.inventory())


def killed_at_the_answer(house: Parts) -> None:
    """SIGKILL as soon as Success has come, before the association is released."""
    ledger = house.new_ledger("answer")
    for _ in range(3):
        house.start("receive")
        one = image()
        association = Association(house.dicom_port, [(one.sop_class, one.syntax)])
        assert record(association, ledger, one) == SUCCESS
        house.kill("receive")
        association.close()
        checkers.no_loss(ledger, house.inventory())


def a_sync_that_fails(house: Parts) -> None:
    """No Success for it, and no second sync of what failed."""
    tracing.require_strace()
    ledger = house.new_ledger("sync")
    trace = house.logs / "trace"
    pid = house.start("receive")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    with tracing.window(pid, "fsync,fdatasync", "error=EIO:when=1", record=trace):
        answers = send(house.dicom_port, ledger, [image() for _ in range(4)])
    again = tracing.synced_again(trace, house.data)
    assert not again, f"synced again after a failure: {again}"
    assert OUT_OF_RESOURCES in answers, answers
    checkers.no_loss(ledger, house.inventory())
    wait_for_trust(house, ledger)


def wait_for_trust(house: Parts, ledger: Ledger) -> None:
    """The disk works again: storage is tested, and without a restart the next store succeeds."""
    deadline = time.monotonic() + SOON_S
    while (status := send(house.dicom_port, ledger, [image()])) != [SUCCESS]:
        assert status == [OUT_OF_RESOURCES] and time.monotonic() < deadline, f"{status}; {house.tails()}"
        time.sleep(0.3)


def a_worker_that_sleeps_past_its_lease(house: Parts) -> None:
    """Frozen until another works on its instance, it wakes and tells what it found: too late."""
    house.settings |= {"LEASE_S": "1"}
    ledger = house.new_ledger("lease")
    house.start("receive")
    house.start("sweep")
    house.start("work", name="sleeper", FAILPOINTS="analyse.before_infer=sleep:1500")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    _wait(house, AnalysisState.CLAIMED, 1)
    house.freeze("sleeper")
    house.start("work", FAILPOINTS="analyse.before_infer=sleep:6000")
    _wait(house, AnalysisState.CLAIMED, 2)
    house.kill("sleeper", signal.SIGCONT)
    checkers.settled(ledger, house.inventory, SOON_S)
    assert "assessed" not in house.log("sleeper").read_text(), "a worker whose lease had run out recorded a verdict"


def a_worker_that_dies(house: Parts) -> None:
    """What it held is finished by another."""
    house.settings |= {"LEASE_S": "1"}
    ledger = house.new_ledger("death")
    house.start("receive")
    house.start("sweep")
    house.start("work", FAILPOINTS="analyse.before_infer=sleep:60000")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    _wait(house, AnalysisState.CLAIMED, 1)
    house.kill("work")
    house.start("work")
    checkers.settled(ledger, house.inventory, SOON_S)


def _wait(house: Parts, state: AnalysisState, attempts: int) -> None:
    deadline = time.monotonic() + 60
    while [(one.states, one.attempts) for one in house.inventory().held] != [((state,), attempts)]:
        assert time.monotonic() < deadline, f"never {state} in attempt {attempts}\n{house.tails()}"
        time.sleep(0.05)


CHALLENGES = (
    order_of_syncs,
    filed_before_recycling,
    short_writes,
    killed_at_the_answer,
    a_sync_that_fails,
    a_worker_that_sleeps_past_its_lease,
    a_worker_that_dies,
)
