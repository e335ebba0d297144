"""Residuals, and restorations that touch nothing outside the mask."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.uint8]

_INPAINT_RADIUS = 3  # pixels


def residual(frame: Frame, restoration: Frame) -> Plane:
    """Largest change over the channels, both signs: uint8 (H, W, 3) twice to uint8 (H, W)."""
    return np.asarray(cv2.absdiff(frame, restoration).max(axis=2), np.uint8)


def grown(mask: Plane, pixels: int = 1) -> Plane:
    """The mask (non-zero = marked) as 0 or 255, widened by ``pixels``: anti-aliased edges of a mark lie outside its
    mask."""
    _, marked = cv2.threshold(mask, 0, 255, cv2.THRESH_BINARY)
    if pixels <= 0:
        return np.asarray(marked, np.uint8)
    return np.asarray(cv2.dilate(marked, np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)), np.uint8)


def filled(frame: Frame, restoration: Frame, mask: Plane) -> Frame:
    """The learned restoration inside the mask; outside, every pixel is that of the frame, bit for bit."""
    return np.asarray(np.where(mask[..., None] > 0, restoration, frame), np.uint8)


def inpainted(frame: Frame, mask: Plane) -> Frame:
    """Telea's inpainting inside the mask; outside, every pixel is that of the frame, bit for bit."""
    if not mask.any():
        return frame.copy()
    x, y, width, height = _surroundings(mask)
    window = np.s_[y : y + height, x : x + width]
    healed = cv2.inpaint(
        np.ascontiguousarray(frame[window]), grown(mask[window], 0), _INPAINT_RADIUS, cv2.INPAINT_TELEA
    )
    restored = frame.copy()
    restored[window] = np.where(mask[window][..., None] > 0, healed, frame[window])
    return restored


def _surroundings(mask: Plane, margin: int = 8) -> tuple[int, int, int, int]:
    """The mask's bounding box and a margin around it: inpainting a whole frame for a small mark is wasted time."""
    x, y, width, height = cv2.boundingRect(grown(mask, 0))
    left, top = max(0, x - margin), max(0, y - margin)
    right, bottom = min(mask.shape[1], x + width + margin), min(mask.shape[0], y + height + margin)
    return left, top, right - left, bottom - top
