"""Overlay planes (60xx), which a viewer draws over the pixels (PS3.3 C.9.2): marks that are not burned in."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from service.dicom.reading import is_fault, unreadable
from service.errors import Undecodable

Plane = npt.NDArray[np.bool_]  # (rows, columns)

# Elements of each overlay's group.
ROWS, COLUMNS, FRAMES, TYPE, ORIGIN, FIRST_FRAME = 0x0010, 0x0011, 0x0015, 0x0040, 0x0050, 0x0051
DATA = 0x3000
_GROUPS = tuple(range(0x6000, 0x6020, 2))
OVERLAY_DATA = tuple(group << 16 | DATA for group in _GROUPS)
_ELEMENTS = (ROWS, COLUMNS, FRAMES, TYPE, ORIGIN, FIRST_FRAME, DATA)
_TAGS = [group << 16 | element for group in _GROUPS for element in _ELEMENTS]
_MOST_PIXELS = 64 * 1024 * 1024  # of one plane
# What pydicom makes of content that contradicts itself.
_CONTRADICTIONS = (InvalidDicomError, ValueError, TypeError, AttributeError, KeyError, RecursionError)


@dataclass(frozen=True)
class Overlay:
    """One overlay: ``planes`` of ``shape`` (rows, columns), one bit a pixel and one behind the other; its upper left
    corner in the image (row, column, from 0), and the first image frame it belongs to; a single plane belongs to every
    frame."""

    bits: bytes = field(repr=False)
    planes: int
    shape: tuple[int, int]
    origin: tuple[int, int]
    first_frame: int

    def on(self, frame: int, shape: tuple[int, int]) -> Plane | None:
        """What it draws on a frame (from 1) of this shape; None where it draws nothing."""
        index = 0 if self.planes == 1 else frame - self.first_frame
        if not 0 <= index < self.planes:
            return None
        drawn = np.zeros(shape, np.bool_)
        (row, column), plane = self.origin, self._plane(index)
        top, left = max(0, row), max(0, column)
        part = plane[top - row : max(0, shape[0] - row), left - column : max(0, shape[1] - column)]
        drawn[top : top + part.shape[0], left : left + part.shape[1]] = part
        return drawn if drawn.any() else None

    def _plane(self, index: int) -> Plane:
        """One plane unpacked: all of a long cine would fill the memory. It may begin within a byte (PS3.5, 8.1.1)."""
        pixels = self.shape[0] * self.shape[1]
        begin, inside = divmod(index * pixels, 8)
        packed = np.frombuffer(self.bits, np.uint8, (inside + pixels + 7) // 8, begin)
        return np.unpackbits(packed, bitorder="little")[inside : inside + pixels].reshape(self.shape).astype(np.bool_)


def read_overlays(path: Path) -> list[Overlay]:
    """The overlays of a DICOM file; none for any other file, and none that contradicts itself.

    Raises:
        Unreadable: the file cannot be read now, which says nothing about what is in it.
        Undecodable: a plane is too large to be looked at.
    """
    with warnings.catch_warnings(action="ignore"):  # they quote what stands in the header
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        except _CONTRADICTIONS:
            return []
        except OSError as error:
            if not is_fault(error):
                return []
            raise unreadable(path, error) from error
        found = (_overlay(header, group) for group in _GROUPS if (group, DATA) in header)
        return [overlay for overlay in found if overlay is not None]


def _overlay(header: Dataset, group: int) -> Overlay | None:
    """None for what draws nothing: a region of interest (C.9.2.1.1), or one that has not the bits it tells of."""
    try:
        if (group, TYPE) in header and str(header[group, TYPE].value) == "R":
            return None
        rows, columns = int(header[group, ROWS].value), int(header[group, COLUMNS].value)
        planes = int(header[group, FRAMES].value) if (group, FRAMES) in header else 1
        row, column = (int(number) for number in header[group, ORIGIN].value) if (group, ORIGIN) in header else (1, 1)
        first = int(header[group, FIRST_FRAME].value) if (group, FIRST_FRAME) in header else 1
        bits = bytes(header[group, DATA].value)
    except _CONTRADICTIONS:
        return None
    if min(rows, columns, planes) < 1 or len(bits) * 8 < rows * columns * planes:
        return None
    if rows * columns > _MOST_PIXELS:
        raise Undecodable(
            f"An overlay of {rows} rows and {columns} columns is too large to be looked at.",
            cure="Ask the modality or the PACS for the image with an overlay of its own size.",
        )
    return Overlay(bits, planes, (rows, columns), (row - 1, column - 1), first)
