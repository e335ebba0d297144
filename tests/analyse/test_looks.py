"""A look from afar, and both looks together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.analyse.looks import blended, from_afar

sides = st.integers(1, 40)


@given(rows=sides, columns=sides, scale=st.floats(0.05, 0.95))
def test_from_afar_a_frame_is_smaller_and_never_empty(rows: int, columns: int, scale: float) -> None:
    small = from_afar(np.full((rows, columns, 3), 77, np.uint8), scale)
    assert (small == 77).all() and small.dtype == np.uint8
    assert small.shape == (max(1, round(rows * scale)), max(1, round(columns * scale)), 3)


@given(near=arrays(np.uint8, (3, 12, 15)), far=arrays(np.uint8, (3, 8, 10)), share=st.sampled_from([0.25, 0.5, 1.0]))
def test_only_kinds_that_are_seen_from_afar_change(near: np.ndarray, far: np.ndarray, share: float) -> None:
    before = near.copy()
    both = blended(near, far, [0.0, share, 0.0])
    assert (near == before).all(), "the near look is the caller's"
    assert (both[[0, 2]] == near[[0, 2]]).all()
    low, high = (1 - share) * near[1] + share * far[1].min(), (1 - share) * near[1] + share * far[1].max()
    assert ((low - 1 <= both[1]) & (both[1] <= high + 1)).all()


def test_both_looks_weigh_by_their_shares() -> None:
    near, far = np.full((1, 10, 10), 200, np.uint8), np.full((1, 7, 7), 100, np.uint8)
    assert (blended(near, far, [0.5]) == 150).all() and (blended(near, far, [0.25]) == 175).all()
