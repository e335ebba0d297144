"""The second look at a frame, from further away: reduced, a large mark lies within what the network sees at once, and a
stroke that resembles a part of one is seen in its surroundings.

Training (calibration, evaluation) and serving look with these functions alone. The thin strokes of calipers, letters
and arrows are seen from nearby only (docs/adr/13-a-second-look-from-afar.md).
"""

from collections.abc import Sequence
from typing import TypeGuard

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB
Planes = npt.NDArray[np.uint8]  # (kinds, rows, columns), probability x 255


def scale_of(value: object) -> float:
    """A card's ``second_look``. Raises ValueError unless it is 0, for none, or a scale below 1."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"second_look is {value!r} and must be a number from 0, for none, to less than 1")
    return float(value)


def share_of(look: str, value: object) -> float:
    """A card's ``far`` or ``close`` of a kind. Raises ValueError unless it is in [0, 1]."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{look} is {value!r} and must be a number from 0 to 1")
    return float(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def from_afar(frame: Frame, scale: float) -> Frame:
    """The frame by area averaging at ``scale`` < 1 of its size."""
    rows, columns = frame.shape[:2]
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def blended(near: Planes, far: Planes, shares: Sequence[float]) -> Planes:
    """What both looks together say: of each kind the mean, in which the look from afar weighs ``shares`` of 1.

    The planes have the size of ``near``; a kind whose share is 0 is the near look's, bit for bit.
    """
    rows, columns = near.shape[1:]
    planes = near.copy()
    for plane, distant, share in zip(planes, far, shares, strict=True):
        if share:
            enlarged = cv2.resize(distant, (columns, rows), interpolation=cv2.INTER_LINEAR)
            cv2.addWeighted(plane, 1 - share, enlarged, share, 0, dst=plane)
    return planes
