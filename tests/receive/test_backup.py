"""A backup holds what has been acknowledged and has no file of its own yet, and little else of the journal."""

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from deploy import journal as copier
from service.archive import lanes
from service.archive.journal import Journal
from service.archive.lanes import LANE_BYTES, Lane
from service.archive.store import ArchiveStore
from service.db.session import Database
from service.receive.filing import Filing
from service.settings import HOUSE, Settings
from tests.receive.conftest import StartReceiver, instances, ultrasound


def run(script: str, folder: Path, house: Path) -> None:
    environment = os.environ | {
        "PYTHON": sys.executable,
        "SONOMARK_DATA_DIR": str(house),
        "SONOMARK_DATABASE_URL": "",
        "SONOMARK_ARCHIVE_URL": "",
    }
    command = [HOUSE / "deploy" / script, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("rsync") is None, reason="no rsync")
def test_what_waits_in_the_journal_is_in_the_backup(
    start_receiver: StartReceiver, db: Database, house: Settings, tmp_path: Path
) -> None:
    sent = [ultrasound() for _ in range(12)]
    receiver = start_receiver(FAILPOINTS="filing.before_copy=sleep:60000")
    assert receiver.store(*sent) == [0] * len(sent)
    assert not list(house.data_dir.rglob("*.dcm")), "all of them lie in the journal alone"
    run("backup.sh", tmp_path / "backup", Path(house.data_dir))
    receiver.kill()
    [copied] = (tmp_path / "backup" / "archive" / "journal").iterdir()
    assert copied.stat().st_size < 1 << 20 < LANE_BYTES

    elsewhere = tmp_path / "elsewhere"
    run("restore.sh", tmp_path / "backup", elsewhere)
    again = start_receiver(DATA_DIR=str(elsewhere))
    again.wait_for("listening")
    there = Database(f"sqlite:///{elsewhere}/sonomark.sqlite")
    rows = instances(there)
    there.dispose()
    assert {row.sop_instance_uid for row in rows} == {each.SOPInstanceUID for each in sent}
    filed = {path.stem for path in (elsewhere / "archive").rglob("*.dcm")}
    assert filed == {row.sha256 for row in rows}
    assert again.store(ultrasound()) == [0]
    assert not (elsewhere / "archive" / "journal" / copied.name).exists(), "a lane cut short is not written into again"


def test_of_each_lane_what_is_in_front_of_the_last_record_that_stands(tmp_path: Path) -> None:
    """Empty ones, what was there before, and what a person has deleted stay behind."""
    journal, target = Journal(tmp_path / "journal"), tmp_path / "copy"
    assert journal.open(3) == []
    while journal.grow(1 << 40):
        pass
    used = journal.take()
    assert used is not None
    kept, deleted = write(used, b"kept" * 5000), write(used, b"deleted" * 3000)
    emptied = journal.take()
    assert emptied is not None
    write(emptied, b"filed long ago")
    emptied.owed = 0
    journal.give_back(emptied)
    entries = list(lanes.entries(used.descriptor))
    lanes.void(used.descriptor, entries[1])
    copier.main(journal.folder, target)
    [copy] = target.iterdir()
    assert copy.name == used.path.name and copy.stat().st_size == entries[0].stop
    store = ArchiveStore(tmp_path / "there")
    store.prepare()
    shutil.copytree(target, store.journal.folder, dirs_exist_ok=True)
    assert store.journal.data(kept) == b"head" + b"kept" * 5000
    assert store.journal.data(deleted) is None
    filing = Filing(store, print)
    filing.start(2, 0)
    assert filing.stop(10)
    assert [path.stem for path in store.root.rglob("*.dcm")] == [kept]


def write(lane: Lane, data: bytes) -> str:
    """A record in the lane; its digest."""
    record = lane.begin(b"head")
    record.write(data)
    record.seal(sha256(data).hexdigest())
    record.hand_on()
    lane.sync()
    return record.sha256
