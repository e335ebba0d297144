"""Lanes that are written over: what lay there before is never taken for part of a record."""

import fcntl
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from service.archive import lanes
from service.archive.journal import FIRST_LANES, Journal
from service.archive.lanes import LANE_BYTES, Lane
from service.archive.store import ArchiveStore
from service.receive.filing import Filing


def used_lane(folder: Path) -> Lane:
    """A lane whose every byte is of earlier instances."""
    path = folder / "one.lane"
    path.write_bytes(b"\x9a" * LANE_BYTES)
    return Lane(path, os.open(path, os.O_RDWR))


def test_records_in_blocks_that_were_used_before_are_all_found(tmp_path: Path) -> None:
    """A mark of a void record that an earlier instance had left there once lost what had been acknowledged."""
    lane = used_lane(tmp_path)
    lane.renew()
    digests = []
    for number in range(5):
        data = bytes([number]) * (3000 * number + 10)
        record = lane.begin(b"head of the file")
        record.write(data)
        digests.append(sha256(data).hexdigest())
        record.seal(digests[-1])
        lane.sync()
    found = list(lanes.entries(lane.descriptor))
    assert [entry.sha256 for entry in found] == digests
    assert not any(entry.void for entry in found)
    lanes.void(lane.descriptor, found[2])
    assert [entry.void for entry in lanes.entries(lane.descriptor)] == [False, False, True, False, False]
    os.close(lane.descriptor)


CUT_SHORT = """
import sys
from pathlib import Path
from service.archive.store import ArchiveStore
from service.receive.filing import Filing
filing = Filing(ArchiveStore(Path(sys.argv[1])), print)
filing.start(4, 0)
print("started")
"""


def test_a_lane_that_was_cut_short_keeps_no_receiver_from_starting(tmp_path: Path) -> None:
    """By a restore that ended early, or a file system's repair: what is whole in it is filed, the rest is said."""
    folder = tmp_path / "journal"
    folder.mkdir()
    lane = used_lane(folder)
    lane.renew()
    for data in (b"whole", b"cut" * 100_000):
        record = lane.begin(b"head")
        record.write(data)
        record.seal(sha256(data).hexdigest())
        lane.taken = False
    os.close(lane.descriptor)
    os.truncate(folder / "one.lane", 100_000)
    command = [sys.executable, "-c", CUT_SHORT, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "started" in done.stdout and "a record of the journal is damaged" in done.stdout + done.stderr
    assert [path.stem for path in tmp_path.rglob("*.dcm")] == [sha256(b"whole").hexdigest()]


@pytest.mark.parametrize("moment", ["taken over", "made"])
def test_a_lane_whose_name_went_meanwhile_is_not_used(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening a lane and locking it another process may remove it: what is written there has no name."""
    journal, lock = Journal(tmp_path / "journal"), fcntl.flock
    if moment == "taken over":
        journal.folder.mkdir()
        (journal.folder / "one.lane").write_bytes(bytes(LANE_BYTES))
    removed = []

    def slow(descriptor: int, operation: int) -> None:
        for path in [] if removed else journal.folder.glob("*.lane"):
            path.unlink()
            removed.append(path)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    journal.open(4)
    journal.grow(1 << 40)
    assert removed
    lane = journal.take()
    assert lane is None or lane.path.exists()


def test_all_lanes_are_written_before_a_burst_needs_them(tmp_path: Path) -> None:
    """In a burst each new one is twice to the disk what it takes: the bytes, and the zeros before."""
    journal, plenty = Journal(tmp_path / "journal"), 1 << 40
    journal.open(12)
    while journal.grow(plenty):
        pass
    assert len(list(journal.folder.glob("*.lane"))) == 12
    assert not journal.scarce


def test_on_a_disk_with_little_room_lanes_come_when_they_are_needed(tmp_path: Path) -> None:
    journal, little = Journal(tmp_path / "journal"), 16 * LANE_BYTES
    journal.open(12)
    while journal.grow(little):
        pass
    assert len(list(journal.folder.glob("*.lane"))) == FIRST_LANES
    taken = [journal.take() for _ in range(FIRST_LANES)]
    assert all(taken) and journal.grow(little, busy=True)


def test_while_instances_come_no_lane_is_written_that_nobody_needs(tmp_path: Path) -> None:
    journal, plenty = Journal(tmp_path / "journal"), 1 << 40
    journal.open(12)
    while journal.grow(plenty, busy=True):
        pass
    assert len(list(journal.folder.glob("*.lane"))) == FIRST_LANES


def test_a_record_that_cannot_be_copied_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sector of the journal that cannot be read once kept everything behind it from being filed, for ever."""
    store, failed = ArchiveStore(tmp_path), []
    filing = Filing(store, failed.append)
    filing.start(1, 0)
    lane = store.journal.take()
    assert lane is not None
    digests, copy = [], lanes.copy
    for number in range(4):
        record = lane.begin(b"head")
        record.write(b"%d" % number)
        digests.append(sha256(b"%d" % number).hexdigest())
        record.seal(digests[-1])

        def damaged(descriptor: int, entry: lanes.Entry, target: Path) -> None:
            if entry.sha256 == digests[1]:
                raise OSError(5, "Input/output error")
            copy(descriptor, entry, target)

        monkeypatch.setattr(lanes, "copy", damaged)
        filing.add(lane, record.hand_on())
    filing.stop(8)
    assert {path.stem for path in tmp_path.rglob("*.dcm")} == {*digests} - {digests[1]}
    assert failed
