"""Faults: whatever breaks, the sender hears the right status, and nothing acknowledged is lost."""

import ctypes
import hashlib
import os
import platform
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import delete

from service.archive.store import ArchiveStore
from service.db.session import Database
from service.db.tables import Analysis, Instance
from service.settings import Settings
from tests.archive.test_receiving import wait_until
from tests.receive.conftest import RunningReceiver, StartReceiver, instances, ultrasound
from tests.receive.test_cstore import archived

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
KILL_POINTS = ["receive.before_fsync", "receive.before_commit", "receive.after_commit", "receive.before_ack"]
# Where an instance gets a file of its own: in the line without a journal, afterwards by filing with one.
NAMING_POINTS = ["archive.before_rename", "archive.before_dirsync"]
FILING_POINTS = ["filing.before_copy", "filing.before_rename", "filing.before_sync", "filing.before_recycling"]
ELSEWHERE = {"receive.before_report"}  # test_commitment


def test_every_failpoint_has_a_kill_test() -> None:
    import re

    import service

    root = Path(service.__file__).parent
    names = {
        name
        for path in [*(root / "receive").glob("*.py"), root / "archive" / "store.py"]
        for name in re.findall(r'fp\("(\w+\.\w+)"\)', path.read_text())
    }
    assert names == {*KILL_POINTS, *NAMING_POINTS, *FILING_POINTS} | ELSEWHERE


@pytest.mark.parametrize(
    ("point", "journal"), [*((point, "96") for point in KILL_POINTS), *((point, "0") for point in NAMING_POINTS)]
)
def test_killed_at(point: str, journal: str, start_receiver: StartReceiver, db: Database, house: Settings) -> None:
    """SIGKILL while the third instance is taken in: the two acknowledged ones stand, the third is whole or absent."""
    receiver = start_receiver(FAILPOINTS=f"{point}=kill@3", JOURNAL_MB=journal)
    sent = [ultrasound() for _ in range(3)]
    statuses = _store_until_dead(receiver, sent)
    assert statuses == [SUCCESS, SUCCESS, None]
    receiver.process.wait(10)
    receiver.environment.pop("SONOMARK_FAILPOINTS")
    receiver.start()
    receiver.wait_for("reconciled.*abandoned=.*", receiver.log.read_text().rfind("listening"))
    rows = instances(db)
    assert {str(d.SOPInstanceUID) for d in sent[:2]} <= {row.sop_instance_uid for row in rows}
    assert len(rows) in (2, 3)
    assert {path.stem for path in archived(house)} == {row.sha256 for row in rows}
    assert all(len(row.analyses) == 1 for row in rows)
    assert receiver.store(*sent) == [SUCCESS] * 3
    assert len(instances(db)) == len(archived(house)) == 3


@pytest.mark.parametrize("point", FILING_POINTS)
def test_killed_while_filing(point: str, start_receiver: StartReceiver, db: Database, house: Settings) -> None:
    """SIGKILL after the acknowledgements, while the instances get files of their own: the next start goes on."""
    receiver = start_receiver(FAILPOINTS=f"{point}=kill@2")
    sent = [ultrasound() for _ in range(3)]
    assert receiver.store(sent[0]) == [SUCCESS]
    assert len(archived(house)) == 1
    statuses = _store_until_dead(receiver, sent[1:])
    receiver.process.wait(10)
    receiver.environment.pop("SONOMARK_FAILPOINTS")
    receiver.start()
    receiver.wait_for("reconciled.*abandoned=.*", receiver.log.read_text().rfind("listening"))
    acknowledged = {str(d.SOPInstanceUID) for d, status in zip(sent, [0, *statuses], strict=True) if status == SUCCESS}
    rows = instances(db)
    assert acknowledged <= {row.sop_instance_uid for row in rows}
    assert {path.stem for path in archived(house)} == {row.sha256 for row in rows}
    assert all(len(row.analyses) == 1 for row in rows)


def test_filing_is_tried_again(start_receiver: StartReceiver, db: Database, house: Settings) -> None:
    receiver = start_receiver(FAILPOINTS="filing.before_rename=enospc@1")
    assert receiver.store(ultrasound(), ultrasound()) == [SUCCESS] * 2
    receiver.wait_for("filing put off")
    assert {path.stem for path in archived(house)} == {row.sha256 for row in instances(db)}


def test_what_was_given_up_is_not_filed(start_receiver: StartReceiver, db: Database, house: Settings) -> None:
    """An instance that is deleted while it waits in the journal stays deleted, also after a crash."""
    receiver = start_receiver(FAILPOINTS="filing.before_copy=sleep:1000")
    assert receiver.store(ultrasound(), ultrasound()) == [SUCCESS] * 2
    kept, deleted = instances(db)
    archive = ArchiveStore(house.data_dir / "archive")
    assert archive.exists(deleted.archive_key)
    archive.delete(deleted.archive_key)
    assert not archive.exists(deleted.archive_key)
    receiver.kill()
    receiver.environment.pop("SONOMARK_FAILPOINTS")
    receiver.start()
    assert [path.stem for path in archived(house)] == [kept.sha256]


def test_what_comes_again_while_it_is_given_up_is_filed(
    start_receiver: StartReceiver, db: Database, house: Settings
) -> None:
    """Deleted just as it gets its file, and sent again before it has it: what was acknowledged last is kept."""
    receiver = start_receiver(FAILPOINTS="filing.before_rename=sleep:2000@1")
    dataset = ultrasound()
    assert receiver.store(dataset) == [SUCCESS]
    [row] = instances(db)
    wait_until(lambda: any(house.data_dir.rglob("*.part")))  # the filing has copied it and waits to give it a name
    ArchiveStore(house.data_dir / "archive").delete(row.archive_key)
    assert receiver.store(dataset) == [SUCCESS]
    receiver.terminate()
    assert [path.stem for path in archived(house)] == [row.sha256]


def test_an_instance_can_be_read_while_it_waits_in_the_journal(
    start_receiver: StartReceiver, db: Database, house: Settings
) -> None:
    receiver = start_receiver(FAILPOINTS="filing.before_copy=sleep:3000")
    assert receiver.store(ultrasound()) == [SUCCESS]
    [row] = instances(db)
    archive = ArchiveStore(house.data_dir / "archive")
    assert archive.filed_size(row.archive_key) is None
    assert (archive.size(row.archive_key) or 0) > row.size
    data = archive.get(row.archive_key)
    assert hashlib.sha256(data[-row.size :]).hexdigest() == row.sha256


def _store_until_dead(receiver: RunningReceiver, datasets: list[Dataset]) -> list[int | None]:
    association = receiver.associate()
    return [association.send_c_store(dataset).get("Status") for dataset in datasets]


@pytest.mark.parametrize("fault", ["eio", "enospc"])
def test_a_failing_disk_is_never_success(
    fault: str, start_receiver: StartReceiver, db: Database, house: Settings
) -> None:
    # Each point is passed only by those whom the points before it let through: 2nd, 3rd and 4th instance fail.
    points = ("receive.before_fsync", *NAMING_POINTS)
    receiver = start_receiver(FAILPOINTS=";".join(f"{point}={fault}@2" for point in points), JOURNAL_MB="0")
    sent = [ultrasound() for _ in range(5)]
    statuses = []
    for dataset in sent:
        began = receiver.log.stat().st_size
        statuses += receiver.store(dataset)
        if fault == "eio" and statuses[-1] != SUCCESS:  # a disk that failed is tested first
            receiver.wait_for("storage has proven itself, instances", began)
    assert statuses == [SUCCESS, OUT_OF_RESOURCES, OUT_OF_RESOURCES, OUT_OF_RESOURCES, SUCCESS]
    assert len(instances(db)) == 2
    assert not list((house.data_dir / "archive/incoming").rglob("*.part"))
    assert receiver.store(*sent) == [SUCCESS] * 5
    assert len(instances(db)) == len(archived(house)) == 5


@pytest.mark.acceptance
def test_database_locked(start_receiver: StartReceiver, db: Database, house: Settings) -> None:
    receiver = start_receiver()
    assert receiver.store(ultrasound()) == [SUCCESS]
    dataset = ultrasound()
    other = sqlite3.connect(house.data_dir / "sonomark.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    association = receiver.associate()
    began = time.monotonic()
    assert association.send_c_store(dataset).Status == OUT_OF_RESOURCES
    assert time.monotonic() - began < 30
    other.rollback()
    other.close()
    assert len(archived(house)) == 1
    assert association.send_c_store(dataset).Status == SUCCESS
    association.release()
    assert len(instances(db)) == len(archived(house)) == 2


def test_database_away(start_receiver: StartReceiver, house: Settings) -> None:
    receiver = start_receiver(DATABASE_URL=f"sqlite:///{house.data_dir}/nowhere/x.sqlite")
    assert receiver.store(ultrasound()) == [OUT_OF_RESOURCES]
    assert not archived(house)
    (house.data_dir / "nowhere").mkdir()


def test_above_the_watermark(start_receiver: StartReceiver, db: Database) -> None:
    receiver = start_receiver(DISK_RESERVE_MB="1000000000")
    assert receiver.store(ultrasound()) == [OUT_OF_RESOURCES]
    assert not instances(db)
    assert "watermark" in receiver.log.read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_disk_full_while_receiving(start_receiver: StartReceiver, db: Database, small_disk: Path) -> None:
    receiver = start_receiver(ARCHIVE_URL=str(small_disk / "archive"))
    large = ultrasound(PixelData=os.urandom(5 << 20))
    second = ultrasound(PixelData=os.urandom(5 << 20))
    small = ultrasound()
    association = receiver.associate()
    assert association.send_c_store(large).Status == SUCCESS
    assert association.send_c_store(second).Status == OUT_OF_RESOURCES
    assert association.send_c_store(small).Status == SUCCESS
    files = [path for path in small_disk.rglob("*") if path.is_file()]
    assert {path.stem for path in files} == {row.sha256 for row in instances(db)}
    next(path for path in files if path.stat().st_size > 1 << 20).unlink()  # somebody frees space
    assert association.send_c_store(second).Status == SUCCESS
    association.release()


@pytest.mark.parametrize(("journal", "call"), [("96", "pwritev,pwritev2"), ("0", "write")])
def test_short_writes_of_the_kernel(journal: str, call: str, start_receiver: StartReceiver, house: Settings) -> None:
    receiver = start_receiver(JOURNAL_MB=journal)
    injector = subprocess.Popen(
        ["strace", "-f", "-p", str(receiver.process.pid), "-e", f"trace={call}", "-e", f"inject={call}:retval=100"],
        stderr=subprocess.PIPE,
    )
    assert injector.stderr is not None
    if b"attached" not in injector.stderr.readline():
        injector.wait()
        pytest.skip("strace may not trace here")
    try:
        statuses = receiver.store(ultrasound())
    finally:
        injector.terminate()
        injector.wait()
    # The kernel claims to have written 100 bytes and wrote none: the size on disk gives it away.
    assert statuses == [OUT_OF_RESOURCES]
    assert not archived(house)


def test_an_aborted_association_leaves_nothing(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    for how in ("abort", "cut"):
        association = receiver.associate()
        _send_half(association)
        if how == "abort":
            association.abort()
        else:
            association.dul.socket.socket.close()
            association.kill()
    deadline = time.monotonic() + 10
    while archived(house) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not archived(house)
    assert not instances(db)
    assert receiver.store(ultrasound()) == [SUCCESS]


def _send_half(association: object) -> None:
    """A C-STORE request whose data set stops after its first fragment."""
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE

    from tests.receive.test_cstore import _encoded

    dataset = ultrasound(PixelData=os.urandom(200_000))
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    from io import BytesIO

    request.DataSet = BytesIO(_encoded(dataset))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    fragments = list(message.encode_msg(association.accepted_contexts[0].context_id, 16384))  # type: ignore[attr-defined]
    for fragment in fragments[:4]:
        association.dul.send_pdu(fragment)  # type: ignore[attr-defined]
    time.sleep(0.3)


def test_sigterm_lets_the_instance_under_way_finish(start_receiver: StartReceiver, db: Database) -> None:
    import threading

    receiver = start_receiver(FAILPOINTS="receive.before_commit=sleep:1500")
    statuses: list[int | None] = []
    sender = threading.Thread(target=lambda: statuses.extend(receiver.store(ultrasound())))
    sender.start()
    receiver.wait_for("association established")
    time.sleep(0.5)
    assert receiver.terminate() == 0
    sender.join()
    assert statuses == [SUCCESS]
    assert len(instances(db)) == 1


def test_sigterm_stops_it_whichever_thread_is_given_it(receiver: RunningReceiver) -> None:
    """The kernel passes the main thread by when that one has just been stopped, for instance."""
    pid = receiver.process.pid
    other = next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid))
    tgkill = 234 if platform.machine() == "x86_64" else 131
    assert ctypes.CDLL(None).syscall(tgkill, pid, other, int(signal.SIGTERM)) == 0
    assert receiver.process.wait(30) == 0


def test_start_up_repairs_and_reports_but_never_deletes(
    receiver: RunningReceiver, start_receiver: StartReceiver, db: Database, house: Settings
) -> None:
    sent = [ultrasound() for _ in range(3)]
    receiver.store(*sent)
    receiver.terminate()
    lost, orphaned, _ = instances(db)
    archive = ArchiveStore(house.data_dir / "archive")
    archive.path(lost.archive_key).unlink()
    with db.begin() as session:
        session.execute(delete(Analysis).where(Analysis.instance_id == orphaned.id))
        session.execute(delete(Instance).where(Instance.id == orphaned.id))
    archive.put("instances/00/00/garbage.dcm", b"not DICOM")
    again = start_receiver()
    again.wait_for("reconciled")
    log = again.log.read_text()
    assert "registered=1" in log
    assert "stray=1" in log
    assert "missing=1" in log
    assert archive.exists("instances/00/00/garbage.dcm")
    assert orphaned.sha256 in {row.sha256 for row in instances(db)}
    assert next(row for row in instances(db) if row.sha256 == orphaned.sha256).analyses


def test_failpoints_are_refused_outside_tests(start_receiver: StartReceiver) -> None:
    with pytest.raises(AssertionError, match="outside a test"):
        start_receiver(FAILPOINTS="receive.before_ack=kill", TESTING="0")
