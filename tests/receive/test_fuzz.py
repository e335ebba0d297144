"""A short run of `python -m tests.fuzz`, the same every time."""

from pathlib import Path

from tests.fuzz import data_sets


def test_damaged_data_sets_are_read_or_refused(tmp_path: Path) -> None:
    ends = data_sets.damage(3000, seed=1, corpus=tmp_path)
    assert sum(ends.values()) == 3000
    assert min(ends["read"], ends["refused"]) > 100
