"""Restorations change nothing outside the mask."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.analyse.residual import filled, grown, inpainted, residual

frames = arrays(np.uint8, (24, 32, 3))
masks = arrays(np.uint8, (24, 32), elements=st.sampled_from([0, 0, 0, 1, 5, 255]))


@given(frames, frames)
def test_the_residual_counts_both_signs(frame: np.ndarray, restoration: np.ndarray) -> None:
    expected = np.abs(frame.astype(int) - restoration.astype(int)).max(axis=2)
    assert (residual(frame, restoration) == expected).all()
    assert (residual(restoration, frame) == expected).all()


@given(frames, frames, masks)
def test_filling_keeps_every_pixel_outside_the_mask(
    frame: np.ndarray, restoration: np.ndarray, mask: np.ndarray
) -> None:
    result = filled(frame, restoration, mask)
    assert (result[mask == 0] == frame[mask == 0]).all()
    assert (result[mask > 0] == restoration[mask > 0]).all()


@given(frames, masks)
@settings(deadline=None)
def test_inpainting_keeps_every_pixel_outside_the_mask(frame: np.ndarray, mask: np.ndarray) -> None:
    assert (inpainted(frame, mask)[mask == 0] == frame[mask == 0]).all()


def test_inpainting_removes_a_bright_line() -> None:
    frame = np.full((40, 60, 3), 80, np.uint8)
    frame[20, 10:50] = 255
    mask = np.zeros((40, 60), np.uint8)
    mask[20, 10:50] = 2
    assert np.abs(inpainted(frame, grown(mask)).astype(int) - 80).max() <= 2


@given(masks, st.integers(0, 3))
def test_a_grown_mask_holds_the_mask(mask: np.ndarray, pixels: int) -> None:
    bigger = grown(mask, pixels)
    assert set(np.unique(bigger)) <= {0, 255}
    assert (bigger[mask > 0] == 255).all()
