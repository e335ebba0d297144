"""One colour box is one mark, although a caliper or a bright echo across its outline leaves it in pieces.

Two boxes side by side, as on a dual screen, are closed towards each other; the halves of one are open.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.int64]

_SMALLEST = 0.04  # of the frame's longer side; nothing shorter is half of a box
_ALIGNED = 0.02  # of the frame's longer side; two edges no farther apart lie on one line
_WIDEST_GAP = 0.5  # of both pieces together
_BAND = 0.08  # of a piece's length: where its last side would be
_CLOSED = 0.5  # of a side's length; a side of which more is drawn closes the piece


class _Piece(NamedTuple):
    label: int
    low: npt.NDArray[np.int64]  # x, y of its top left pixel
    high: npt.NDArray[np.int64]  # x, y of its bottom right pixel
    points: Points


def rejoined(points: Points, label: npt.NDArray[np.int64], longer_side: int) -> npt.NDArray[np.int64]:
    """Give the pieces of one outline one label.

    ``points`` (n, 2) are the x, y of the pixels, ``label`` (n,) the component each belongs to; returns the labels anew.
    """
    pieces = _pieces(points, label, longer_side)
    outline = {piece.label: piece.label for piece in pieces}  # the label each piece gets
    for one, other in combinations(pieces, 2):
        if _halves(one, other, 0, longer_side) or _halves(one, other, 1, longer_side):
            kept, gone = outline[one.label], outline[other.label]
            outline = {name: kept if its == gone else its for name, its in outline.items()}
    result = label.copy()
    for name, its in outline.items():
        result[label == name] = its
    return result


def _pieces(points: Points, label: npt.NDArray[np.int64], longer_side: int) -> list[_Piece]:
    if not len(points):
        return []
    order = np.argsort(label, kind="stable")
    names, starts = np.unique(label[order], return_index=True)
    groups = np.split(points[order], starts[1:])
    pieces = [_Piece(int(name), own.min(axis=0), own.max(axis=0), own) for name, own in zip(names, groups, strict=True)]
    return [piece for piece in pieces if (piece.high - piece.low).min() >= _SMALLEST * longer_side]


def _halves(one: _Piece, other: _Piece, axis: int, longer_side: int) -> bool:
    """Whether one piece continues the other along ``axis`` (0: to the right, 1: downwards) as the same outline."""
    first, second = (one, other) if one.low[axis] <= other.low[axis] else (other, one)
    across = 1 - axis
    tolerance = _ALIGNED * longer_side
    aligned = (
        abs(first.low[across] - second.low[across]) <= tolerance
        and abs(first.high[across] - second.high[across]) <= tolerance
    )
    whole = max(first.high[axis], second.high[axis]) - first.low[axis]
    gap = second.low[axis] - first.high[axis]
    apart = -tolerance <= gap <= _WIDEST_GAP * whole
    return bool(aligned and apart) and not (_closed(first, axis, at_end=True) or _closed(second, axis, at_end=False))


def _closed(piece: _Piece, axis: int, *, at_end: bool) -> bool:
    """Whether the side at the piece's end (or start) along ``axis`` is drawn."""
    across = 1 - axis
    length = piece.high - piece.low + 1
    along = piece.points[:, axis]
    band = max(3, round(_BAND * int(length[axis])))
    near = along > piece.high[axis] - band if at_end else along < piece.low[axis] + band
    drawn = len(np.unique(piece.points[near, across]))
    return bool(drawn > _CLOSED * length[across])
