"""Every failpoint of the source is one at which the acceptance run kills a process."""

from tests.faults.points import VICTIMS, failpoints, victim


def test_every_failpoint_belongs_to_a_part_that_is_killed_there() -> None:
    points = failpoints()
    assert len(points) > 8
    assert {point.partition(".")[0] for point in points} <= VICTIMS.keys()
    assert {victim(point) for point in points} == {"receive", "work", "sweep"}
