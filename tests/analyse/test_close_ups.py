"""Where close-ups are taken, what they show, and how they count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.analyse.annotations import Kind
from service.analyse.close_ups import ENLARGED, MOST, SIDE, THIN, CloseUp, blended, count_of, enlarged, places

KINDS = list(Kind)
CALIPER = KINDS.index(Kind.CALIPER)


def planes(rows: int, columns: int, *points: tuple[float, float], kind: int = CALIPER) -> np.ndarray:
    """Planes on which a kind was noticed at these places, each given as shares of the frame's height and width."""
    found = np.zeros((len(KINDS), rows, columns), np.uint8)
    for down, across in points:
        found[kind, int(down * (rows - 1)), int(across * (columns - 1))] = 60
    return found


sides = st.integers(1, 700)
anywhere = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30)


@given(rows=sides, columns=sides, points=anywhere, kind=st.sampled_from([KINDS.index(Kind(name)) for name in THIN]))
def test_whatever_was_noticed_is_seen_closely(
    rows: int, columns: int, points: list[tuple[float, float]], kind: int
) -> None:
    kinds = planes(rows, columns, *points, kind=kind)
    found = places(kinds, KINDS, most=len(points))
    read = np.zeros((rows, columns), bool)
    for place in found:
        assert 0 <= place.x <= place.columns.start < place.columns.stop <= min(place.x + SIDE, columns)
        assert 0 <= place.y <= place.rows.start < place.rows.stop <= min(place.y + SIDE, rows)
        before = read.sum()
        read[place.rows, place.columns] = True
        assert read.sum() > before, "no place is looked at twice"
    assert read[kinds.any(axis=0)].all()


@given(points=anywhere, most=st.integers(0, MOST))
def test_no_frame_gets_more_of_them_than_the_card_allows(points: list[tuple[float, float]], most: int) -> None:
    assert len(places(planes(1000, 1000, *points), KINDS, most)) <= most


def test_the_first_one_shows_the_most() -> None:
    crowd = [(0.5 + step / 100, 0.5) for step in range(8)]
    first, second = places(planes(600, 800, (0.05, 0.05), *crowd), KINDS, most=2)
    assert first.rows.start < 300 < first.rows.stop and first.columns.start < 400 < first.columns.stop
    assert (second.x, second.y) == (0, 0)


def test_large_kinds_and_faint_traces_are_not_looked_at() -> None:
    assert not places(planes(300, 300, (0.5, 0.5), kind=KINDS.index(Kind.BODY_MARKER)), KINDS, 3)
    assert not places(planes(300, 300, (0.5, 0.5)) // 2, KINDS, 3)


@given(rows=sides, columns=sides)
def test_what_the_network_sees_of_it_has_one_size(rows: int, columns: int) -> None:
    frame = np.full((rows, columns, 3), 77, np.uint8)
    (place,) = places(planes(rows, columns, (1, 1)), KINDS, 1)
    square = enlarged(frame, place)
    assert square.shape == (ENLARGED, ENLARGED, 3) and (square == 77).all()


def test_a_mark_stands_where_it_stood() -> None:
    frame = np.zeros((600, 800, 3), np.uint8)
    frame[300:304, 420:424] = 255
    kinds = planes(600, 800, (0.5, 0.5))
    (place,) = places(kinds, KINDS, 1)
    answer = np.repeat(enlarged(frame, place)[None, ..., 0], len(KINDS), axis=0)
    seen = blended(kinds, [(place, answer)], [1.0] * len(KINDS))[CALIPER]
    assert seen[300:304, 420:424].min() > 200 and not seen[:298].any() and not seen[:, 430:].any()


def test_each_kind_weighs_close_ups_by_its_own_share_and_only_where_they_were_taken() -> None:
    kinds = np.full((2, 400, 400), 200, np.uint8)
    place = CloseUp(100, 50, slice(82, 218), slice(132, 268))
    answer = np.full((2, ENLARGED, ENLARGED), 100, np.uint8)
    before = kinds.copy()
    both = blended(kinds, [(place, answer)], [0.25, 0.0])
    assert (kinds == before).all(), "the first look is the caller's"
    assert (both[1] == 200).all() and (both[0][place.rows, place.columns] == 175).all()
    both[0][place.rows, place.columns] = 200
    assert (both[0] == 200).all()


@pytest.mark.parametrize("value", [-1, MOST + 1, 2.0, "3", True, None])
def test_a_count_that_is_none_is_named(value: object) -> None:
    with pytest.raises(ValueError, match="close_ups is"):
        count_of(value)
