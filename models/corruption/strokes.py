"""Vector strokes, and the canvas they are drawn on.

Marks are drawn four times finer than the frame and reduced by area, each within its own bounding box, so that a
one-pixel line gets the true share of every pixel it crosses. An old overlay plane has no anti-aliasing: `fineness=1`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

cv2.setNumThreads(1)

FINENESS = 4
# Where a stroke covers less of a pixel than this, the pixel keeps its former owner.
SHARE = 0.35
# Fixed-point bits of cv2's sub-pixel coordinates.
_SHIFT = 4
# Strokes are rasterised together while their common box stays this small (pixels of the frame).
_CHUNK_AREA = 80 * 80


@dataclass(frozen=True)
class Stroke:
    """A polyline of `width` pixels, or a filled polygon where `width` is 0; `points` is (n, 2) of x, y in pixels."""

    points: Points
    width: float = 1.0
    closed: bool = False

    def box(self) -> Box:
        """Left, top, right, bottom, with a pixel to spare."""
        margin = self.width / 2 + 1
        # Most strokes are two points: Python's own min beats NumPy's there, and a dotted line has hundreds.
        xs, ys = zip(*self.points.tolist(), strict=True)
        return min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin


class Canvas:
    """A frame with marks on it: `image` uint8 HxWx3; `kind` and `coverage` (0-255), HxW, say what and how fully."""

    def __init__(self, frame: Image) -> None:
        self.image = frame.copy()
        self.height: int = frame.shape[0]
        self.width: int = frame.shape[1]
        self.kind: Image = np.zeros((self.height, self.width), np.uint8)
        self.coverage: Image = np.zeros((self.height, self.width), np.uint8)

    def draw(
        self, strokes: Iterable[Stroke], colour: Colour, kind: int = 0, *, alpha: float = 1.0, fineness: int = FINENESS
    ) -> None:
        """Draw strokes; with kind 0 they become part of the frame itself."""
        for box, chunk in _chunks(strokes):
            drawn = _rasterise(chunk, box, self.width, self.height, fineness)
            if drawn is not None:
                x, y, coverage = drawn
                self.stamp(coverage, x, y, colour, kind, alpha=alpha)

    def stamp(
        self, coverage: Image, x: int, y: int, colour: Colour | Image, kind: int = 0, *, alpha: float = 1.0
    ) -> None:
        """Blend `colour` (one, or an image of the patch's shape) through a coverage patch with its corner at x, y."""
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + coverage.shape[1], self.width), min(y + coverage.shape[0], self.height)
        if left >= right or top >= bottom:
            return
        inside = (slice(top - y, bottom - y), slice(left - x, right - x))
        coverage = coverage[inside]
        at = (slice(top, bottom), slice(left, right))
        under = self.image[at].astype(np.float32)
        paint = colour[inside] if isinstance(colour, np.ndarray) else np.array(colour, np.float32)
        weight = coverage[:, :, None] * np.float32(alpha / 255.0)
        self.image[at] = (under + weight * (paint - under) + np.float32(0.5)).astype(np.uint8)
        if kind:
            taken = (coverage >= SHARE * 255) | ((coverage > self.coverage[at]) & (coverage > 0))
            same = taken & (self.kind[at] == kind)
            self.coverage[at][same] = np.maximum(self.coverage[at], coverage)[same]
            fresh = taken & ~same
            self.coverage[at][fresh] = coverage[fresh]
            self.kind[at][fresh] = kind


def _chunks(strokes: Iterable[Stroke]) -> Iterator[tuple[Box, list[Stroke]]]:
    """Strokes in groups with a small common box."""
    chunk: list[Stroke] = []
    box: Box | None = None
    for stroke in strokes:
        own = stroke.box()
        joined = (
            own if box is None else (min(own[0], box[0]), min(own[1], box[1]), max(own[2], box[2]), max(own[3], box[3]))
        )
        if chunk and (joined[2] - joined[0]) * (joined[3] - joined[1]) > _CHUNK_AREA:
            assert box is not None
            yield box, chunk
            chunk, joined = [], own
        chunk.append(stroke)
        box = joined
    if box is not None:
        yield box, chunk


def rasterised(
    strokes: Sequence[Stroke], width: int, height: int, fineness: int = FINENESS
) -> tuple[int, int, Image] | None:
    """Corner and coverage (0-255) of the strokes in a frame of that size, or None where none of them lies inside."""
    boxes = np.array([stroke.box() for stroke in strokes])
    around = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
    return _rasterise(strokes, around, width, height, fineness)


def _rasterise(
    strokes: Sequence[Stroke], box: Box, width: int, height: int, fineness: int
) -> tuple[int, int, Image] | None:
    left, top = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
    right, bottom = min(math.ceil(box[2]) + 1, width), min(math.ceil(box[3]) + 1, height)
    if left >= right or top >= bottom:
        return None
    fine: Image = np.zeros(((bottom - top) * fineness, (right - left) * fineness), np.uint8)
    for stroke in strokes:
        # cv2 puts integer coordinates at pixel centres; frame coordinates put them there too.
        points = ((stroke.points - (left, top) + 0.5) * fineness - 0.5) * (1 << _SHIFT)
        fixed = np.round(points).astype(np.int32)
        if stroke.width == 0:
            cv2.fillPoly(fine, [fixed], 255, cv2.LINE_8, _SHIFT)
        else:
            if fineness == 1:
                fixed = ((fixed + (1 << (_SHIFT - 1))) >> _SHIFT) << _SHIFT
            thickness = max(1, round(stroke.width * fineness))
            if len(fixed) == 2 and (fixed[0] == fixed[1]).sum() == 1:
                _upright(fine, fixed >> _SHIFT, thickness)
                continue
            cv2.polylines(fine, [fixed], stroke.closed, 255, thickness, cv2.LINE_8, _SHIFT)
    if fineness > 1:
        fine = np.asarray(cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA), np.uint8)
    return left, top, fine


def _upright(plane: Image, ends: npt.NDArray[np.int32], thickness: int) -> None:
    """A level or upright line has square ends on a scanner; cv2 would round them."""
    before, after = thickness // 2, (thickness - 1) // 2
    (x0, y0), (x1, y1) = ends.min(axis=0).tolist(), ends.max(axis=0).tolist()
    if y0 == y1:
        y0, y1 = y0 - before, y1 + after
    else:
        x0, x1 = x0 - before, x1 + after
    plane[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)] = 255


def dashed(points: Points, *pattern: float, closed: bool = False) -> list[Points]:
    """Cut a polyline into dashes; `pattern` gives dash, gap, dash, gap … in turn, in pixels along the line."""
    if closed:
        points = np.vstack([points, points[:1]])
    lengths = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    offsets = np.concatenate([[0.0], np.cumsum(pattern)])
    dashes = []
    for origin in np.arange(0.0, along[-1], offsets[-1]):
        for start, stop in zip(origin + offsets[:-1:2], origin + offsets[1::2], strict=True):
            if start >= along[-1]:
                break
            stop = min(stop, along[-1])
            inner = points[(along > start) & (along < stop)]
            ends = [[np.interp(s, along, points[:, 0]), np.interp(s, along, points[:, 1])] for s in (start, stop)]
            dashes.append(np.vstack([ends[:1], inner, ends[1:]]))
    return dashes


def line(x0: float, y0: float, x1: float, y1: float) -> Points:
    return np.array([[x0, y0], [x1, y1]], np.float64)


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64)


def arc(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0, steps: int = 32) -> Points:
    """Points of an ellipse's arc; angles in degrees, clockwise from the x axis as the y axis points down."""
    angle = np.radians(np.linspace(start, stop, steps))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def smooth(control: Points | Sequence[tuple[float, float]], *, closed: bool = False, steps: int = 6) -> Points:
    """A Catmull-Rom spline through the control points."""
    p = np.asarray(control, np.float64)
    before, after = (p[-1:], p[:2]) if closed else (2 * p[:1] - p[1:2], 2 * p[-1:] - p[-2:-1])
    q = np.vstack([before, p, after])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(q[:-3], q[1:-2], q[2:-1], q[3:], strict=True):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    if not closed:
        pieces.append(p[-1:])
    return np.vstack(pieces)


def turned(points: Points, degrees: float, x: float = 0.0, y: float = 0.0) -> Points:
    """Rotate about (x, y)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    centre = np.array([x, y])
    return np.asarray((points - centre) @ np.array([[c, s], [-s, c]]) + centre, np.float64)


def noise(rng: np.random.Generator, width: int, height: int, grain: float) -> npt.NDArray[np.float32]:
    """Smooth noise of about unit variance, with features of `grain` pixels."""
    small = rng.standard_normal((max(3, int(height / grain) + 3), max(3, int(width / grain) + 3))).astype(np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
