"""docs/interoperability.md is true: measured again with the same senders, it reads the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.parts import Parts
from tests.interoperability import matrix
from tests.interoperability.__main__ import MARK, PAGE

pytestmark = pytest.mark.acceptance


@pytest.mark.timeout(900)
def test_the_table_is_true(make_parts: Callable[..., Parts], tmp_path: Path) -> None:
    house = make_parts()
    house.start("receive")
    try:
        table = matrix.document(matrix.measure(house, tmp_path))
    except matrix.Missing as missing:
        pytest.skip(f"a sender is missing: {missing}")
    assert table == PAGE.read_text().partition(MARK)[2].lstrip("\n")
    assert "status=0x" not in house.log("receive").read_text(), "a C-STORE was refused"
