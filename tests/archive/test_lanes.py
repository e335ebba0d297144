"""Lanes that are written over: what lay there before is never taken for part of a record."""

import os
from hashlib import sha256
from pathlib import Path

from service.archive import lanes
from service.archive.lanes import LANE_BYTES, Lane


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
