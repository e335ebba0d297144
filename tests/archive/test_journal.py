"""Instances that wait in the journal are readable, also where no file can be made."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from service.archive import lanes
from service.archive.lanes import LANE_BYTES, Lane
from service.archive.store import ArchiveStore, instance_key
from service.errors import OutOfSpace


@pytest.fixture
def waiting(tmp_path: Path) -> tuple[ArchiveStore, str]:
    """An archive with one instance in its journal alone."""
    store = ArchiveStore(tmp_path)
    path = store.journal.folder / "one.lane"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(LANE_BYTES))
    lane = Lane(path, os.open(path, os.O_RDWR))
    lane.renew()
    digest = sha256(b"data set").hexdigest()
    record = lane.begin(b"head ")
    record.write(b"data set")
    record.seal(digest)
    lane.sync()
    os.close(lane.descriptor)
    return store, instance_key(digest)


def test_what_waits_is_read_on_a_full_disk(waiting: tuple[ArchiveStore, str], monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = waiting

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    assert store.get(key) == b"head data set"
    with pytest.raises(OutOfSpace):
        store.path(key)
    assert not list(store.root.rglob("*.part"))
    monkeypatch.undo()
    assert store.path(key).read_bytes() == b"head data set"


def test_what_was_given_up_is_not_read(waiting: tuple[ArchiveStore, str]) -> None:
    store, key = waiting
    descriptor = os.open(store.journal.folder / "one.lane", os.O_RDWR)
    lanes.void(descriptor, next(iter(lanes.entries(descriptor))))
    os.close(descriptor)
    assert store.journal.data(key.rpartition("/")[2].removesuffix(".dcm")) is None
