"""Overlay planes (60xx), which a viewer draws over the pixels (PS3.3 C.9.2): marks that are not burned in."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

Plane = npt.NDArray[np.bool_]  # (rows, columns)

# Elements of each overlay's group.
ROWS, COLUMNS, FRAMES, TYPE, ORIGIN, FIRST_FRAME = 0x0010, 0x0011, 0x0015, 0x0040, 0x0050, 0x0051
BITS, POSITION, DATA = 0x0100, 0x0102, 0x3000
_GROUPS = tuple(range(0x6000, 0x6020, 2))
OVERLAY_DATA = tuple(group << 16 | DATA for group in _GROUPS)
_TAGS = [group << 16 | element for group in _GROUPS for element in (
    ROWS, COLUMNS, FRAMES, TYPE, ORIGIN, FIRST_FRAME, BITS, POSITION, DATA
)]  # fmt: skip
_MOST_PIXELS = 64 * 1024 * 1024  # of one overlay, all its frames together


@dataclass(frozen=True)
class Overlay:
    """One overlay: ``planes`` (frames, rows, columns), its upper left corner in the image (row, column, from 0), and
    the first image frame it belongs to; a single plane belongs to every frame."""

    planes: npt.NDArray[np.bool_]
    origin: tuple[int, int]
    first_frame: int

    def on(self, frame: int, shape: tuple[int, int]) -> Plane | None:
        """What it draws on a frame (from 1) of this shape; None where it draws nothing."""
        index = 0 if len(self.planes) == 1 else frame - self.first_frame
        if not 0 <= index < len(self.planes):
            return None
        drawn = np.zeros(shape, np.bool_)
        (row, column), plane = self.origin, self.planes[index]
        top, left = max(0, row), max(0, column)
        part = plane[top - row : max(0, shape[0] - row), left - column : max(0, shape[1] - column)]
        drawn[top : top + part.shape[0], left : left + part.shape[1]] = part
        return drawn if drawn.any() else None


def read_overlays(path: Path) -> list[Overlay]:
    """The overlays of a DICOM file; none for any other file, and none for one that contradicts itself."""
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote what stands in the header
            header = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            groups = [group for group in _GROUPS if (group, DATA) in header]
            return [_overlay(header, group) for group in groups if _is_drawn(header, group)]
    except (InvalidDicomError, OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return []


def _is_drawn(header: Dataset, group: int) -> bool:
    """Graphics, not a region of interest (C.9.2.1.1), and no more of it than fits the memory."""
    frames = int(header[group, FRAMES].value) if (group, FRAMES) in header else 1
    pixels = int(header[group, ROWS].value) * int(header[group, COLUMNS].value) * max(1, frames)
    is_graphic = (group, TYPE) not in header or str(header[group, TYPE].value) != "R"
    return is_graphic and 0 < pixels <= _MOST_PIXELS


def _overlay(header: Dataset, group: int) -> Overlay:
    planes = np.asarray(header.overlay_array(group), np.bool_)
    row, column = (int(number) for number in header[group, ORIGIN].value) if (group, ORIGIN) in header else (1, 1)
    first = int(header[group, FIRST_FRAME].value) if (group, FIRST_FRAME) in header else 1
    return Overlay(planes if planes.ndim == 3 else planes[np.newaxis], (row - 1, column - 1), first)
