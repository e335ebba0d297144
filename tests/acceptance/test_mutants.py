"""The checkers can fail: the product passes every challenge, and each mutant of it falls to one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.challenges import CHALLENGES
from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.parts import Parts

pytestmark = pytest.mark.acceptance
MakeParts = Callable[..., Parts]


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, str, str]]]:
    """What each mutant fell to, printed when all have been tried."""
    rows: list[tuple[str, str, str]] = []
    yield rows
    print("\n| mutant | falls to | because |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


@pytest.mark.parametrize("challenge", CHALLENGES, ids=lambda challenge: challenge.__name__)
def test_the_product_passes(challenge: Callable[[Parts], None], make_parts: MakeParts) -> None:
    challenge(make_parts())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_falls(
    mutant: Mutant, make_parts: MakeParts, tmp_path: Path, table: list[tuple[str, str, str]]
) -> None:
    house = make_parts(code=mutant.grow(tmp_path / "tree"))
    with pytest.raises(AssertionError) as fall:
        mutant.falls_to(house)
    table.append((mutant.name, mutant.falls_to.__name__, str(fall.value).splitlines()[0][:100]))
