"""Close-ups: what the first look noticed, seen once more, enlarged.

Strokes are one or two pixels wide on many screens, and heads of arrows no larger than a letter. Enlarged they are what
training has seen more of; and two looks err less together than one. Only the few places where something thin was
noticed are looked at, so that a frame without marks costs hardly more (docs/adr/14-close-ups.md). Training
(calibration, evaluation) and serving find and place them with these functions alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from service.analyse.padding import padded

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB
Plane = npt.NDArray[np.uint8]  # (rows, columns), probability x 255
Planes = npt.NDArray[np.uint8]  # (kinds, rows, columns)

SIDE = 200  # pixels of the frame that a close-up shows
ENLARGED = 256  # pixels of it that the network sees
MOST = 16  # what a card may ask for

_MARGIN = 32  # pixels along its edges: what lies there is seen without its surroundings
_CELL = 8  # pixels; places are looked for on a grid this coarse
_NOTICED = 38  # of 255: far below what any threshold takes for a mark
_REACH = (SIDE // 2 - _MARGIN - _CELL // 2) // _CELL  # cells on each side of the middle one that are read
THIN = ("caliper", "arrow")  # kinds that gain by it


class CloseUp(NamedTuple):
    """A square of the frame by its upper left corner, and the part of it that is read: ``rows`` and ``columns``."""

    x: int
    y: int
    rows: slice
    columns: slice


def count_of(value: object) -> int:
    """A card's ``close_ups``: how many a frame gets at most. Raises ValueError unless it is a number from 0 to 16."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise ValueError(f"close_ups is {value!r} and must be a whole number from 0, for none, to {MOST}")
    return value


def places(kinds: Planes, names: Sequence[str], most: int) -> list[CloseUp]:
    """Where to look closely: squares that hold the most of what was noticed, at most ``most`` of them. ``names`` are
    the kinds of the planes."""
    height, width = kinds.shape[1:]
    noticed = _noticed([plane for plane, name in zip(kinds, names, strict=True) if name in THIN])
    found: list[CloseUp] = []
    size = (2 * _REACH + 1, 2 * _REACH + 1)
    while len(found) < most and noticed.any():
        within = cv2.boxFilter(noticed, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
        column, row = cv2.minMaxLoc(within)[3]
        left, top = max(column - _REACH, 0), max(row - _REACH, 0)
        crowd = noticed[top : row + _REACH + 1, left : column + _REACH + 1]
        across, down, wide, tall = cv2.boundingRect(crowd.astype(np.uint8))
        x, columns = _along(left + across + wide // 2, width)
        y, rows = _along(top + down + tall // 2, height)
        found.append(CloseUp(x, y, rows, columns))
        noticed[_cells(rows, height), _cells(columns, width)] = 0
    return found


def enlarged(frame: Frame, close_up: CloseUp) -> Frame:
    """What the network sees of it: uint8 (256, 256, 3); a small frame is mirrored at its edge."""
    part = frame[close_up.y : close_up.y + SIDE, close_up.x : close_up.x + SIDE]
    below, right = SIDE - part.shape[0], SIDE - part.shape[1]
    return np.asarray(
        cv2.resize(padded(part, below, right), (ENLARGED, ENLARGED), interpolation=cv2.INTER_CUBIC), np.uint8
    )


def blended(kinds: Planes, seen: Sequence[tuple[CloseUp, Planes]], shares: Sequence[float]) -> Planes:
    """The planes of the frame together with those of its close-ups, uint8 (kinds, 256, 256) each: of each kind the
    mean, in which a close-up weighs ``shares`` of 1. Where none was taken nothing changes; of two the later one counts.
    """
    if not seen:
        return kinds
    together = kinds.copy()
    for (x, y, rows, columns), answer in seen:
        part = np.s_[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        for before, plane, closely, share in zip(kinds, together, answer, shares, strict=True):
            reduced = cv2.resize(closely, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[part]
            plane[rows, columns] = cv2.addWeighted(before[rows, columns], 1 - share, reduced, share, 0)
    return together


def _noticed(planes: Sequence[Plane]) -> npt.NDArray[np.float32]:
    """1 for every cell of the frame in which one of the planes shows something."""
    height, width = planes[0].shape
    cells = np.zeros((-(-height // _CELL), -(-width // _CELL)), np.float32)
    for plane in planes:
        points = cv2.findNonZero(cv2.threshold(plane, _NOTICED - 1, 255, cv2.THRESH_BINARY)[1])
        if points is not None:
            column, row = points.reshape(-1, 2).T // _CELL
            cells[row, column] = 1
    return cells


def _along(cell: int, length: int) -> tuple[int, slice]:
    """Where a close-up round this cell begins, and what of it is read; at the frame's edge nothing surrounds it."""
    start = min(max(cell * _CELL + _CELL // 2 - SIDE // 2, 0), max(length - SIDE, 0))
    stop = min(start + SIDE, length)
    return start, slice(start + _MARGIN * (start > 0), stop - _MARGIN * (stop < length))


def _cells(pixels: slice, length: int) -> slice:
    """The cells that lie wholly within, those that the frame's edge cuts included."""
    return slice(-(-pixels.start // _CELL), -(-length // _CELL) if pixels.stop == length else pixels.stop // _CELL)
