"""What meets at the door by chance: none of it makes an acknowledged instance another one, or none."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event

import psutil
import pytest
from sqlalchemy import update

from service.archive.lanes import LANE_BYTES, Lane
from service.archive.retention import release_due
from service.archive.store import ArchiveStore, instance_key
from service.archive.verify import verify
from service.db import checks
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Condition, Release, Study, Verdict, now
from service.dicom.header import data_set_position
from service.errors import DiskFault
from service.receive import crew
from service.receive.incoming import Berth, Incoming, StoreRequest
from service.receive.intake import Intake
from service.receive.suspension import Suspension
from service.settings import Settings
from tests.archive.shelf import at_once, encoded, spoil
from tests.archive.test_retention import activate
from tests.faults.images import image
from tests.faults.sender import SUCCESS, Association, p_data, store_request
from tests.ports import free_port
from tests.receive.conftest import RunningReceiver, StartReceiver, instances, ultrasound
from tests.receive.test_cstore import archived


@pytest.mark.parametrize("way", ["pynetdicom's own path", "commands in two fragments"])
def test_who_does_not_wait_for_answers_overwrites_nothing(
    way: str, start_receiver: StartReceiver, db: Database, house: Settings
) -> None:
    """Asynchronous operations were not negotiated, and some senders do not wait all the same (PS3.7 annex D.3.3.3)."""
    receiver = start_receiver(LEAN_RECEIVING="0" if way.startswith("pynetdicom") else "1")
    sent = [image(columns=256, rows=200 + number) for number in range(24)]
    sent += sent[:6]  # some of them twice: what was here before gives its place in the lane back
    association = Association(receiver.port, [(sent[0].sop_class, sent[0].syntax)])
    together = b""
    for number, one in enumerate(sent, start=1):
        command = store_request(number, one.sop_class, one.uid)
        if way == "commands in two fragments":
            together += p_data(1, command[:20], is_command=True, is_last=False)
            command = command[20:]
        together += p_data(1, command, is_command=True)
        together += p_data(1, one.data[:30_000], is_last=False) + p_data(1, one.data[30_000:])
    association.socket.sendall(together)
    statuses = [association.status() for _ in sent]
    association.release()
    rows = {row.sop_instance_uid: row for row in instances(db)}
    files = {path.stem: path for path in archived(house)}
    for one, status in zip(sent, statuses, strict=True):
        if status != SUCCESS:
            continue
        kept = files[rows[one.uid].sha256]
        assert kept.read_bytes()[data_set_position(kept.read_bytes()) :] == one.data
    assert statuses == [SUCCESS] * len(sent)


def test_the_same_bytes_mend_a_damaged_file(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    dataset = ultrasound()
    receiver.store(dataset)
    archived(house)
    store = ArchiveStore(house.data_dir / "archive")
    [row] = instances(db)
    spoil(store, row.archive_key)
    assert verify(store, db, now()).damaged == 1
    assert receiver.store(dataset) == [SUCCESS]
    with db.read() as session:
        assert checks.counts(session)[Condition.DAMAGED] == 0  # it waits for its next look
    deadline = time.monotonic() + 10
    while verify(store, db, now() + timedelta(minutes=1)).damaged:
        assert time.monotonic() < deadline, "the damaged file is still there"
        time.sleep(0.1)


class SlowlyDeleting(ArchiveStore):
    """Deletes only once the same bytes have come again and lie in the journal."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun, self.again = Event(), Event()

    def delete(self, key: str) -> None:
        self.begun.set()
        assert self.again.wait(10)
        super().delete(key)


def take(intake: Intake, berth: Berth, dataset: object, on_sealed: Event | None = None) -> bool:
    """One data set through the intake, as an association would bring it; whether it was new."""
    data = encoded(dataset)  # type: ignore[arg-type]
    uid, syntax = str(dataset.SOPInstanceUID), str(dataset.file_meta.TransferSyntaxUID)  # type: ignore[attr-defined]
    sop_class = str(dataset.SOPClassUID)  # type: ignore[attr-defined]
    incoming = Incoming(berth, StoreRequest(sop_class, uid, sop_class, syntax, "US01", "test"))
    incoming.write(data)
    if on_sealed is not None:
        seal = incoming.seal

        def sealed() -> None:
            seal()
            on_sealed.set()

        incoming.seal = sealed  # type: ignore[method-assign]
    return intake.take(incoming).created


def test_what_comes_again_while_it_is_deleted_is_kept(any_db: Database, tmp_path: Path) -> None:
    """A policy deletes a study's bytes, and at this very moment the study is sent again and acknowledged."""
    store = SlowlyDeleting(tmp_path / "archive")
    intake = Intake(store, any_db, at_once, 0)
    intake.start(4 * LANE_BYTES)
    berth, dataset = Berth(store), ultrasound(InstitutionName="North")
    assert take(intake, berth, dataset)
    with any_db.begin() as session:
        session.execute(update(Analysis).values(state=AnalysisState.DONE))
        long_ago = now() - timedelta(days=400)
        session.execute(update(Study).values(last_received_at=long_ago, settled=True, verdict=Verdict.COMPLIANT))
    activate(any_db)
    with ThreadPoolExecutor(1) as pool:
        released = pool.submit(release_due, store, any_db, "test")
        assert store.begun.wait(10)
        assert not take(intake, berth, dataset, on_sealed=store.again)
        assert released.result(30) == 1
    berth.leave()
    intake.stop(10)
    key = instance_key(hashlib.sha256(encoded(dataset)).hexdigest())
    with any_db.read() as session:
        assert not session.query(Release).count()
    assert store.exists(key)
    # It came today: a policy of a year does not release it an hour later.
    assert release_due(store, any_db, "test") == 0
    assert store.exists(key)


def test_a_neighbour_whose_bytes_fail_the_disk_takes_nobody_in(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a commit syncs its own bytes meanwhile. When that fails, whoever commits must hear of it, too."""
    store = ArchiveStore(tmp_path / "archive")
    intake = Intake(store, db, at_once, 0)
    intake.start(4 * LANE_BYTES)
    berths = {name: Berth(store) for name in ("first", "failing", "neighbour")}
    deadline = time.monotonic() + 60
    for berth in berths.values():  # lanes are written one after the other, and slowly on a busy disk
        while berth.lane() is None:
            assert time.monotonic() < deadline, "never so many lanes"
            time.sleep(0.05)
    begun = {name: Event() for name in berths}
    goes_on, synced = Event(), Lane.sync

    def sync(lane: Lane) -> None:
        name = next(name for name, berth in berths.items() if berth._lane is lane)
        assert not begun[name].is_set(), "synced again"
        begun[name].set()
        if name == "first":
            assert goes_on.wait(30)
        if name == "failing":
            raise DiskFault("The disk failed.")
        synced(lane)

    monkeypatch.setattr(Lane, "sync", sync)
    with ThreadPoolExecutor(3) as pool:
        taken = {}
        for name, berth in berths.items():
            taken[name] = pool.submit(take, intake, berth, ultrasound())
            assert begun[name].wait(30)
        goes_on.set()  # the first one commits; the other two are in line
        assert taken["first"].result(30)
        for name in ("failing", "neighbour"):
            with pytest.raises(DiskFault):
                taken[name].result(30)
    monkeypatch.undo()
    assert len(instances(db)) == 1
    for berth in berths.values():
        berth.leave()
    intake.stop(10)


class Meanwhile(ArchiveStore):
    """Between a file and the second look at its record something happens, once."""

    happens: Callable[[], None] | None = None

    def file_all(self, objects: list[tuple[Path, str]]) -> None:
        super().file_all(objects)
        happens, self.happens = self.happens, None
        if happens:
            happens()


def test_filing_takes_back_its_own_file_alone(db: Database, tmp_path: Path) -> None:
    """What was given up comes again to another process, STOW-RS say, and is acknowledged and has its file there."""
    store, other = Meanwhile(tmp_path / "archive"), ArchiveStore(tmp_path / "archive")
    intake, elsewhere = Intake(store, db, at_once, 0), Intake(other, db, at_once, 0)
    intake.start(4 * LANE_BYTES)
    berth, dataset = Berth(store), ultrasound()
    key = instance_key(hashlib.sha256(encoded(dataset)).hexdigest())

    def given_up_and_here_again() -> None:
        other.delete(key)
        take(elsewhere, Berth(other), dataset)

    store.happens = given_up_and_here_again
    take(intake, berth, dataset)
    berth.leave()
    intake.stop(10)
    assert store.happens is None
    assert other.exists(key), "acknowledged, and gone"
    assert not list(tmp_path.rglob("*.part"))


def test_filing_takes_back_what_was_given_up_meanwhile(db: Database, tmp_path: Path) -> None:
    store = Meanwhile(tmp_path / "archive")
    intake = Intake(store, db, at_once, 0)
    intake.start(4 * LANE_BYTES)
    berth, dataset = Berth(store), ultrasound()
    key = instance_key(hashlib.sha256(encoded(dataset)).hexdigest())
    store.happens = lambda: store.journal.give_up(Path(key).stem)
    take(intake, berth, dataset)
    berth.leave()
    intake.stop(10)
    assert store.happens is None and not store.exists(key)
    assert not list(tmp_path.rglob("*.part"))


FAILING = """
from service.db import peers
from service.receive import peers as door
read, calls, door.REFRESH_S = peers.let_in, [], 0.0
def fails_later(session):
    calls.append(session)
    if len(calls) > 2:
        raise RuntimeError("the table of peers cannot be read")
    return read(session)
peers.let_in = fails_later
"""


def test_a_door_that_cannot_tell_who_calls_lets_nobody_in(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(before=FAILING, PEERS="US01")
    for ae_title in ("STRANGER", "US01"):
        assert not receiver.associate(ae_title=ae_title).is_established, "it cannot tell one from the other"


def test_a_suspended_door_opens_again_whatever_its_test_met(db: Database, tmp_path: Path) -> None:
    """The thread that proves the storage is the only one that opens the door."""
    store, met = ArchiveStore(tmp_path / "archive"), []

    def odd() -> None:
        met.append("once")
        if len(met) == 1:
            raise RuntimeError("nobody foresaw this")
        ArchiveStore.prove(store)

    store.prove = odd  # type: ignore[method-assign]
    door = Suspension(store, db)
    door.note(DiskFault("It failed."))
    deadline = time.monotonic() + 20
    while door.reason():
        assert time.monotonic() < deadline, "the door stays shut"
        time.sleep(0.1)


def test_a_crew_goes_on_when_a_process_cannot_be_started_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(_: int) -> subprocess.Popen[bytes]:
        if len(started) == 1:
            started.append(started[0])
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(subprocess.Popen(["sleep", "0.1" if not started else "60"]))
        return started[-1]

    monkeypatch.setattr(crew, "_started", start)
    monkeypatch.setattr(crew, "PAUSE_S", 0.2)
    receivers = crew.Crew(2)
    receivers.start()
    deadline = time.monotonic() + 10
    while len(started) < 3:
        assert time.monotonic() < deadline, "the fallen process has no successor"
        time.sleep(0.05)
    receivers.stop()


DYING = """
import os, signal
from service.receive import crew
with open(os.environ["PID"], "w") as file:
    print(crew._started(1).pid, file=file)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_whose_first_one_died_while_it_started_ends_too(
    house: Settings, db: Database, tmp_path: Path
) -> None:
    """It would listen on the shared port for ever, and nobody would stop it."""
    noted, log = tmp_path / "pid", tmp_path / "log"
    further = {"DATA_DIR": str(house.data_dir), "DICOM_PORT": str(free_port()), "RECEIVERS": "2"}
    environment = os.environ | {"PID": str(noted)} | {f"SONOMARK_{name}": value for name, value in further.items()}
    with log.open("wb") as said:
        first = subprocess.run([sys.executable, "-c", DYING], env=environment, stdout=said, stderr=said, check=False)
    assert first.returncode == -signal.SIGKILL
    orphan = psutil.Process(int(noted.read_text()))
    try:
        deadline = time.monotonic() + 15
        while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.2)
    except psutil.NoSuchProcess:
        pass
    finally:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()
    assert "listening" not in log.read_text(errors="replace")
