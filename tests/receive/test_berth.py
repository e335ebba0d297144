"""Where an association's instances go: into one lane until the next one would not fit."""

import os
from pathlib import Path

import pytest

from service.archive.lanes import LANE_BYTES
from service.archive.store import ArchiveStore
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
