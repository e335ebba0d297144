"""What a frame shows beside its picture: the banner with patient, site and time that scanners burn into the pixels.

Only the header's ultrasound regions (PS3.3 C.8.5.5) tell picture and banner apart; see `regions.py`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Area(NamedTuple):
    """Pixels of the frame: left, top, and right and bottom, which lie outside."""

    x0: int
    y0: int
    x1: int
    y1: int

    def meets(self, other: "Area") -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


def areas_of(header: Mapping[str, Any]) -> list[Area]:
    """The header's regions that have corners and an extent; none where it does not say."""
    areas = []
    for region in header.get("regions") or ():
        x0, y0, x1, y1 = (region.get(name) for name in ("x0", "y0", "x1", "y1"))
        if all(isinstance(corner, int) for corner in (x0, y0, x1, y1)) and 0 <= x0 < x1 and 0 <= y0 < y1:
            areas.append(Area(x0, y0, x1 + 1, y1 + 1))  # the standard's corners belong to the region
    return areas


def blacked_out(frame: npt.NDArray[np.uint8], kept: Iterable[Area]) -> npt.NDArray[np.uint8]:
    """The frame, uint8 (H, W) or (H, W, 3), with every pixel outside of these areas black."""
    left = np.zeros_like(frame)
    for x0, y0, x1, y1 in kept:
        window = np.s_[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
        left[window] = frame[window]
    return left
