"""Pixel shuffle and its inverse, held to their definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.analyse.pixel_shuffle import shuffled, shuffled_colours, unshuffled


def defined(planes: np.ndarray) -> np.ndarray:
    """`torch.nn.PixelShuffle(2)`, as PyTorch's documentation defines it."""
    count, channels, rows, columns = planes.shape
    squares = planes.reshape(count, channels // 4, 2, 2, rows, columns)
    return squares.transpose(0, 1, 4, 2, 5, 3).reshape(count, channels // 4, 2 * rows, 2 * columns)


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_planes_become_what_the_definition_says(count: int, kinds: int, rows: int, columns: int, seed: int) -> None:
    planes = np.random.default_rng(seed).integers(0, 256, (count, 4 * kinds, rows, columns), np.uint8)
    assert (shuffled(planes) == defined(planes)).all()


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_frames_are_taken_apart_and_put_together(count: int, rows: int, columns: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (count, 2 * rows, 2 * columns, 3), np.uint8)
    planes = unshuffled(frames)
    assert planes.shape == (count, 12, rows, columns)
    assert (defined(planes).transpose(0, 2, 3, 1) == frames).all()
    assert (shuffled_colours(planes) == frames).all()
