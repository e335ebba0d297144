"""Reading marks from the typed mask: properties that hold for every mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.analyse.annotations import Calibration, Kind, Thresholds, read_marks

THRESHOLDS = {kind: Thresholds(pixel=0.5, min_pixels=4, absent=0.2, present=0.5) for kind in Kind}
CALIBRATION = {kind: Calibration(-6.0, 0.6, 0.3, 3.0, 2.0, 1.0, 1.0, 0.2) for kind in Kind}

SIDE = 96
places, sides = st.integers(0, 80), st.integers(2, 40)
rectangles = st.tuples(places, places, sides, sides, st.integers(1, 255))


@st.composite
def planes(draw: st.DrawFn) -> np.ndarray:
    """Typed masks with a few rectangles of any probability in any plane."""
    kinds = np.zeros((len(Kind), SIDE, SIDE), np.uint8)
    for plane in range(len(Kind)):
        for x, y, width, height, value in draw(st.lists(rectangles, max_size=3)):
            kinds[plane, y : y + height, x : x + width] = value
    return kinds


def read(kinds: np.ndarray, residual: np.ndarray | None = None):
    return read_marks(kinds, residual, THRESHOLDS, CALIBRATION)


def test_nothing_drawn_scores_zero() -> None:
    evidence = read(np.zeros((len(Kind), SIDE, SIDE), np.uint8))
    assert evidence.annotations == ()
    assert evidence.scores == dict.fromkeys(Kind, 0.0)
    assert not evidence.mask.any()


def test_a_drawn_mark_is_found_where_it_is() -> None:
    kinds = np.zeros((len(Kind), SIDE, SIDE), np.uint8)
    kinds[1, 20:40, 30:70] = 250
    evidence = read(kinds)
    [annotation] = evidence.annotations
    assert (annotation.kind, annotation.box, annotation.pixels) == (Kind.CALIPER, (30, 20, 40, 20), 800)
    assert evidence.scores[Kind.CALIPER] == annotation.score > 0.5
    assert (evidence.mask == 2).sum() == 800


@pytest.mark.parametrize(("gap", "found"), [(4, 1), (40, 2)])
def test_pieces_that_lie_near_each_other_are_one_mark(gap: int, found: int) -> None:
    kinds = np.zeros((len(Kind), SIDE, SIDE), np.uint8)
    kinds[1, 20:30, 10:20] = kinds[1, 20:30, 20 + gap : 30 + gap] = 250
    assert len(read(kinds).annotations) == found


def test_wrong_number_of_planes_is_refused() -> None:
    with pytest.raises(ValueError, match="planes"):
        read(np.zeros((3, SIDE, SIDE), np.uint8))


@given(arrays(np.uint8, (len(Kind), 40, 56)))
@settings(deadline=None, max_examples=50)
def test_any_noise_gives_scores_in_range_and_boxes_inside(kinds: np.ndarray) -> None:
    evidence = read(kinds)
    assert set(evidence.scores) == set(Kind)
    assert all(0.0 <= score <= 1.0 for score in evidence.scores.values())
    for annotation in evidence.annotations:
        x, y, width, height = annotation.box
        assert 0 <= x < x + width <= 56 and 0 <= y < y + height <= 40
        assert 0 < annotation.pixels <= width * height


@given(planes())
@settings(deadline=None)
def test_scores_do_not_change_when_the_frame_is_mirrored(kinds: np.ndarray) -> None:
    # The side is a multiple of the joining grid's cell, so that mirrored pixels fall into mirrored cells.
    mirrored = read(np.ascontiguousarray(kinds[:, :, ::-1])).scores
    assert mirrored == pytest.approx(read(kinds).scores)


@given(planes(), st.permutations(range(len(Kind))))
@settings(deadline=None)
def test_kinds_of_equal_calibration_and_joining_are_read_alike(kinds: np.ndarray, order: list[int]) -> None:
    before, after = read(kinds), read(kinds[order])
    # Distances at which strokes are joined differ between kinds, so only what one rectangle shows must be equal.
    for new, old in enumerate(order):
        if len(np.unique(kinds[old])) <= 2 and kinds[old].any() and _is_one_rectangle(kinds[old]):
            kind_before, kind_after = list(Kind)[old], list(Kind)[new]
            assert after.scores[kind_after] == pytest.approx(before.scores[kind_before])


@given(planes(), rectangles)
@settings(deadline=None)
def test_more_evidence_never_lowers_a_score(kinds: np.ndarray, more: tuple[int, int, int, int, int]) -> None:
    x, y, width, height, value = more
    raised = kinds.copy()
    window = raised[2, y : y + height, x : x + width]
    np.maximum(window, value, out=window)
    assert read(raised).scores[Kind.COLOR_BOX] >= read(kinds).scores[Kind.COLOR_BOX] - 1e-12


@given(planes())
@settings(deadline=None)
def test_the_mask_holds_the_pixels_of_the_annotations(kinds: np.ndarray) -> None:
    evidence = read(kinds)
    assert set(np.unique(evidence.mask)) - {0} <= {list(Kind).index(a.kind) + 1 for a in evidence.annotations}
    inside = np.zeros((SIDE, SIDE), bool)
    for annotation in evidence.annotations:
        x, y, width, height = annotation.box
        inside[y : y + height, x : x + width] = True
    assert not evidence.mask[~inside].any()


@given(planes())
@settings(deadline=None)
def test_a_residual_lends_support_only(kinds: np.ndarray) -> None:
    supported = read(kinds, np.full((SIDE, SIDE), 255, np.uint8)).scores
    unsupported = read(kinds, np.zeros((SIDE, SIDE), np.uint8)).scores
    assert supported == pytest.approx(read(kinds).scores)
    assert all(unsupported[kind] <= supported[kind] for kind in Kind)


def _is_one_rectangle(plane: np.ndarray) -> bool:
    y, x = np.nonzero(plane)
    return bool((np.ptp(x) + 1) * (np.ptp(y) + 1) == len(x))


def test_a_mask_is_as_thin_as_its_outline_says() -> None:
    kinds = np.zeros((len(Kind), SIDE, SIDE), np.uint8)
    kinds[1, 20:40, 30:70] = 150
    kinds[1, 28:32, 30:70] = 250
    thin = {kind: Thresholds(pixel=0.5, min_pixels=4, absent=0.2, present=0.5, outline=0.9) for kind in Kind}
    thick, outlined = read(kinds), read_marks(kinds, None, thin, CALIBRATION)
    assert (outlined.mask > 0).sum() == 160 < (thick.mask > 0).sum() == 800
    assert outlined.annotations == thick.annotations and outlined.scores == thick.scores


def test_a_speck_beside_a_mark_is_no_mark_of_its_own() -> None:
    kinds = np.zeros((len(Kind), SIDE, SIDE), np.uint8)
    kinds[1, 10:40, 10:60] = 250
    kinds[1, 80:84, 80:86] = 200
    limits = Thresholds(pixel=0.5, min_pixels=4, absent=0.2, present=0.5)
    strict = {kind: replace(limits, beside=0.5) for kind in Kind}
    calibration = {kind: Calibration(-6.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8) for kind in Kind}
    lent = read_marks(kinds, None, dict.fromkeys(Kind, limits), calibration)
    own = read_marks(kinds, None, strict, calibration)
    assert [mark.box for mark in lent.annotations] == [(10, 10, 50, 30), (80, 80, 6, 4)]
    assert [mark.box for mark in own.annotations] == [(10, 10, 50, 30)]
    assert own.scores == lent.scores and not own.mask[80:].any()


@given(planes(), st.floats(0, 1))
@settings(deadline=None)
def test_a_kind_that_is_present_is_always_shown(kinds: np.ndarray, beside: float) -> None:
    strict = {kind: replace(limits, beside=beside) for kind, limits in THRESHOLDS.items()}
    evidence = read_marks(kinds, None, strict, CALIBRATION)
    assert evidence.scores == read(kinds).scores
    shown = {annotation.kind for annotation in evidence.annotations}
    assert shown == {kind for kind in Kind if evidence.scores[kind] >= THRESHOLDS[kind].present}
