"""Where an association's instances go: into one lane until the next one would not fit."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from service.archive.lanes import LANE_BYTES, Lane
from service.archive.store import ArchiveStore
from service.errors import StorageError
from service.receive.incoming import Berth, Incoming, StoreRequest

REQUEST = StoreRequest("1.2.3", "1.2.3.4", "1.2.3", "1.2.840.10008.1.2.1", "US01", "test")


@pytest.fixture
def store(tmp_path: Path) -> ArchiveStore:
    """An archive whose journal has one lane."""
    made = ArchiveStore(tmp_path)
    made.journal.open(1)
    assert made.journal.grow(1 << 40)
    return made


def stored(berth: Berth, octets: int) -> Incoming:
    incoming = Incoming(berth, REQUEST)
    half = os.urandom(octets // 2)
    incoming.write(half)
    incoming.write(half, last=True)
    incoming.seal()
    incoming.sync()
    return incoming


def test_a_lane_is_filled_by_instances_that_are_alike(store: ArchiveStore) -> None:
    berth = Berth(store)
    kept = 0
    while (incoming := stored(berth, 1_440_000)).path is None:  # there is no other lane
        assert incoming.keep() is not None
        kept += 1
    assert kept == LANE_BYTES // 1_450_000
    assert incoming.path.stat().st_size > 1_440_000
    incoming.void()


def test_a_larger_one_than_those_before_moves_out_whole(store: ArchiveStore) -> None:
    berth = Berth(store)
    for _ in range(9):
        stored(berth, 1_440_000).keep()
    large = Incoming(berth, REQUEST)
    half = os.urandom(3_000_000)
    large.write(half)
    large.write(half, last=True)
    large.seal()
    large.sync()
    assert large.path is not None
    assert large.path.read_bytes()[large.head_size :] == half + half
    large.void()


def test_a_failed_sync_is_not_tried_again_whoever_asks(store: ArchiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own thread and the one that commits want it on disk: one of them syncs, and both hear what came of it."""
    tried: list[Lane] = []

    def fails(lane: Lane) -> None:
        tried.append(lane)
        raise StorageError("The disk failed.")

    incoming = Incoming(Berth(store), REQUEST)
    incoming.write(b"12345678", last=True)
    incoming.seal()
    monkeypatch.setattr(Lane, "sync", fails)
    with ThreadPoolExecutor(2) as pool:
        heard = [pool.submit(incoming.sync) for _ in range(2)]
    assert [type(each.exception()) for each in heard] == [StorageError, StorageError]
    assert len(tried) == 1


def test_what_is_sealed_again_is_synced_again(store: ArchiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who commits seals it once more while its own thread still syncs what was there before."""
    begun, goes_on, synced = Event(), Event(), []
    sync = Lane.sync

    def slowly(lane: Lane) -> None:
        begun.set()
        assert goes_on.wait(10)
        sync(lane)
        synced.append(lane)

    incoming = Incoming(Berth(store), REQUEST)
    incoming.write(b"12345678", last=True)
    incoming.seal()
    monkeypatch.setattr(Lane, "sync", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(incoming.sync)
        assert begun.wait(10)
        again = pool.submit(incoming.seal_again)
        goes_on.set()
        first.result(10)
        again.result(10)
    incoming.sync()
    assert len(synced) == 2
