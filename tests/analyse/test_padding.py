"""Frames of any size reach the network's stride, and what is added goes on as they do."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as some

from service.analyse.padding import padded

SIDES = some.integers(1, 70)


@given(SIDES, SIDES, some.integers(0, 80), some.integers(0, 80), some.integers(0, 2**32 - 1))
def test_a_frame_stays_and_what_is_added_is_of_it(rows: int, columns: int, below: int, right: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    whole = padded(frame, below, right)
    assert whole.shape == (rows + below, columns + right, 3)
    np.testing.assert_array_equal(whole[:rows, :columns], frame)
    assert set(map(tuple, whole.reshape(-1, 3))) == set(map(tuple, frame.reshape(-1, 3)))


def test_the_edge_is_a_mirror() -> None:
    frame = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    whole = padded(frame, 3, 2)
    np.testing.assert_array_equal(whole[5:8, :4], frame[[3, 2, 1]])
    np.testing.assert_array_equal(whole[:5, 4:6], frame[:, [2, 1]])
