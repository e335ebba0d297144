"""Every failpoint of the source has a test that kills a process there."""

from pathlib import Path

from tests.faults.points import VICTIMS, failpoints, victim


def test_every_failpoint_has_a_kill_test() -> None:
    """`acceptance/test_kills` takes its points from the source, part by part; of others some test speaks by name."""
    points = failpoints()
    assert len(points) > 8
    assert {victim(point) for point in points} >= {"receive", "work", "sweep"}
    tests = [path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py")]
    orphans = [point for point in points if point.partition(".")[0] not in VICTIMS]
    assert not [point for point in orphans if not any(f'"{point}"' in text for text in tests)]
