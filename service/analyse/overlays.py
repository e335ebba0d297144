"""Overlay planes as the network sees them: drawn into the frame as a viewer draws them, and told apart afterwards."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from service.analyse.annotations import Annotation, Kind
from service.dicom.overlays import Overlay, Plane

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB
Mask = npt.NDArray[np.uint8]  # (rows, columns): 0 for background, i + 1 for the i-th kind

_OWN = 0.5  # share of a mark's pixels that lie on the overlay, from which the overlay drew it
_NEAR = np.ones((5, 5), np.uint8)  # a mask is a little wider than its stroke


def drawn_on(overlays: Sequence[Overlay], number: int, shape: tuple[int, int]) -> Plane | None:
    """Everything that overlays draw on frame ``number`` (from 1); None where they draw nothing."""
    planes = [plane for overlay in overlays if (plane := overlay.on(number, shape)) is not None]
    return np.logical_or.reduce(planes) if planes else None


def burned(frame: Frame, overlays: Sequence[Overlay], number: int) -> Frame:
    """The frame with its overlays in white."""
    drawn = drawn_on(overlays, number, (frame.shape[0], frame.shape[1])) if overlays else None
    if drawn is None:
        return frame
    frame = frame.copy()
    frame[drawn] = 255
    return frame


def overlaid(marks: Sequence[Annotation], mask: Mask, drawn: Plane | None) -> tuple[Annotation, ...]:
    """The marks, those named as the overlay's that lie on it."""
    if drawn is None:
        return tuple(marks)
    near = cv2.dilate(drawn.astype(np.uint8), _NEAR) > 0
    return tuple(replace(mark, source="overlay") if _lies_on(mark, mask, near) else mark for mark in marks)


def _lies_on(mark: Annotation, mask: Mask, near: Plane) -> bool:
    x, y, width, height = mark.box
    own = mask[y : y + height, x : x + width] == list(Kind).index(mark.kind) + 1
    return bool(own.any()) and float(near[y : y + height, x : x + width][own].mean()) >= _OWN
