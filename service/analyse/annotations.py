"""From the network's mask to typed annotations with a box and a score, and to one presence score per kind.

Training (calibration, evaluation) and serving read marks with this one function, so that a threshold chosen there
means the same here. Every feature grows with the evidence and no weight is negative: more evidence never lowers a
score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, astuple, dataclass, fields
from enum import StrEnum
from math import isfinite
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from service.analyse import outlines

Plane = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float64]


class Kind(StrEnum):
    """What is drawn into a frame; the order is that of the network's planes."""

    BODY_MARKER = "body_marker"
    CALIPER = "caliper"
    COLOR_BOX = "color_box"
    TEXT = "text"
    ARROW = "arrow"


# Strokes of one mark lie apart: a dashed line, the cross hairs within a circle, the letters of a word. What is nearer
# than this share of the frame's longer side is one annotation.
MERGE_DISTANCE: Mapping[Kind, float] = {
    Kind.BODY_MARKER: 0.02,
    Kind.CALIPER: 0.025,
    Kind.COLOR_BOX: 0.04,
    Kind.TEXT: 0.02,
    Kind.ARROW: 0.01,
}

_CELL = 4  # pixels; components are joined on a grid this coarse
_PEAK, _CORE = 16, 128  # pixels; the strongest part of a mark
_MASS, _TOTAL = 0, 6  # columns of the features
_SUPPORT = 48.0  # grey levels; a residual of this size fully supports a mask pixel


@dataclass(frozen=True, slots=True)
class Annotation:
    """One mark: its score in [0, 1], its box (x, y, width, height) and its number of mask pixels in the frame."""

    kind: Kind
    score: float
    box: tuple[int, int, int, int]
    pixels: int
    source: str = "network"  # "overlay": drawn by an overlay plane, not in the pixels
    text: str = ""  # what was read there, a line a line
    text_score: float | None = None  # confidence of that, in [0, 1]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A pixel counts from probability ``pixel``, a mark from ``min_pixels`` such pixels; a presence score in
    [``absent``, ``present``) is uncertain. Of a mark that is present, the mask shows the pixels from probability
    ``outline``: weak pixels help to find a mark, but make it thicker than it was drawn. A weaker mark ``beside`` the
    strongest of its kind is one only if it would score this much alone: what the others lend it would make marks of
    specks, and a rule may count them. ``far`` is the share of the look from afar in its probabilities (see `looks`),
    ``close`` that of close-ups where there are any (see `close_ups`)."""

    pixel: float
    min_pixels: int
    absent: float
    present: float
    outline: float = 0.0
    beside: float = 0.0
    far: float = 0.0
    close: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic regression on a component's features, see `_component_features`; every weight is >= 0."""

    intercept: float
    mass: float
    support: float
    peak: float
    core: float
    rows: float
    columns: float
    total: float

    def score(self, features: Features) -> npt.NDArray[np.float64]:
        """Presence probability for rows of ``features``, shape (n, 7) to (n,)."""
        weights = np.asarray(astuple(self), np.float64)
        logit = weights[0] + features @ weights[1:]
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -40.0, 40.0))), np.float64)


def limits_of(tables: Mapping[str, Any]) -> dict[Kind, Thresholds]:
    """Every kind's thresholds from a card. Raises ValueError, which says what is wrong with which."""
    limits = {kind: Thresholds(**_numbers(Thresholds, tables, kind, "thresholds")) for kind in Kind}
    for kind, each in limits.items():
        for name in ("pixel", "absent", "present", "outline", "beside", "far", "close"):
            if not 0 <= getattr(each, name) <= 1:
                raise ValueError(f"thresholds.{kind}.{name} is {getattr(each, name)} and must lie between 0 and 1")
        if each.absent > each.present:
            raise ValueError(f"thresholds.{kind}.absent is above {kind}.present")
    return limits


def weights_of(tables: Mapping[str, Any]) -> dict[Kind, Calibration]:
    """Every kind's calibration from a card. Raises ValueError, which says what is wrong with which."""
    return {kind: Calibration(**_numbers(Calibration, tables, kind, "calibration")) for kind in Kind}


def _numbers(entry: type, tables: Mapping[str, Any], kind: Kind, section: str) -> dict[str, Any]:
    """The table of a kind, which has the fields of ``entry`` and no others, all of them finite numbers."""
    table = tables.get(kind)
    if not isinstance(table, Mapping):
        raise ValueError(f"it has no table {section}.{kind}")
    unknown = table.keys() - {field.name for field in fields(entry)}
    lacking = {field.name for field in fields(entry) if field.default is MISSING} - table.keys()
    if unknown or lacking:
        problem = f"knows no {min(unknown)}" if unknown else f"lacks {min(lacking)}"
        raise ValueError(f"{section}.{kind} {problem}")
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"{section}.{kind}.{name} is {value!r} and must be a number")
    return dict(table)


@dataclass(frozen=True)
class Evidence:
    """What was drawn on one frame.

    ``annotations`` holds the marks that are present for sure (score >= ``present``), strongest first; ``scores`` the
    presence of every kind in [0, 1], found or not; ``mask`` is uint8 (H, W), 0 for background and i + 1 for the i-th
    kind.
    """

    annotations: tuple[Annotation, ...]
    scores: dict[Kind, float]
    mask: Plane


@dataclass(frozen=True)
class Components:
    """The marks of one kind, one row each: ``features`` (n, 7), ``boxes`` (n, 4), ``pixels`` (n,); ``points`` are the
    x, y of every mask pixel and ``owner`` the row each belongs to."""

    features: Features
    boxes: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.int64]
    points: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int64]


def read_marks(
    kinds: Plane,
    residual: Plane | None,
    thresholds: Mapping[Kind, Thresholds],
    calibration: Mapping[Kind, Calibration],
) -> Evidence:
    """Find the marks in the network's typed mask.

    ``kinds`` is uint8 (5, H, W), probability x 255, one plane per `Kind` in its order; ``residual`` uint8 (H, W) or
    None. Raises ValueError when the planes do not match the kinds.
    """
    if kinds.ndim != 3 or kinds.shape[0] != len(Kind):
        raise ValueError(f"expected {len(Kind)} planes, one per kind, and got shape {kinds.shape}")
    mask = np.zeros(kinds.shape[1:], np.uint8)
    strongest = np.zeros(kinds.shape[1:], np.uint8)
    scores: dict[Kind, float] = {}
    annotations: list[Annotation] = []
    for number, (kind, plane) in enumerate(zip(Kind, kinds, strict=True), start=1):
        limits = thresholds[kind]
        marks = components(plane, residual, kind, limits.pixel, limits.min_pixels)
        score = calibration[kind].score(marks.features)
        scores[kind] = float(score.max(initial=0.0))
        sure = (score >= limits.present) & stands_alone(marks.features, score, calibration[kind], limits.beside)
        annotations += [
            Annotation(kind, float(score[row]), _box(marks.boxes[row]), int(marks.pixels[row]))
            for row in np.flatnonzero(sure)
        ]
        x, y = marks.points[sure[marks.owner]].T
        wins = plane[y, x] > np.maximum(strongest[y, x], max(round(limits.outline * 255) - 1, 0))
        x, y = x[wins], y[wins]
        mask[y, x], strongest[y, x] = number, plane[y, x]
    annotations.sort(key=lambda annotation: -annotation.score)
    return Evidence(tuple(annotations), scores, mask)


def stands_alone(
    features: Features, score: npt.NDArray[np.float64], calibration: Calibration, beside: float
) -> npt.NDArray[np.bool_]:
    """Which marks of one kind are the strongest, or would score ``beside`` were they alone in the frame: shape (n,)."""
    if not len(score):
        return np.zeros(0, np.bool_)
    stands = calibration.score(by_itself(features)) >= beside
    stands[score.argmax()] = True
    return np.asarray(stands)


def by_itself(features: Features) -> Features:
    """The features every mark would have were it alone in the frame."""
    alone = features.copy()
    alone[:, _TOTAL] = alone[:, _MASS]
    return alone


def components(plane: Plane, residual: Plane | None, kind: Kind, pixel: float, min_pixels: int) -> Components:
    """The marks of one kind: pixels of at least probability ``pixel``, joined over the kind's merge distance."""
    level = max(1, round(pixel * 255))
    if cv2.minMaxLoc(plane)[1] < level:
        return _nothing()
    _, hot = cv2.threshold(plane, level - 1, 255, cv2.THRESH_BINARY)
    found = cv2.findNonZero(hot)
    if found is None:
        return _nothing()
    points = found.reshape(-1, 2).astype(np.int64)
    label = _joined(points, plane.shape, kind)
    if kind is Kind.COLOR_BOX:
        label = outlines.rejoined(points, label, max(plane.shape))
    _, owner, pixels = np.unique(label, return_inverse=True, return_counts=True)
    keep = pixels >= min_pixels
    if not keep.any():
        return _nothing()
    kept = keep[owner]
    points, owner = points[kept], (np.cumsum(keep) - 1)[owner[kept]]
    features, boxes = _component_features(plane, residual, points, owner, int(keep.sum()))
    return Components(features, boxes, pixels[keep].astype(np.int64), points, owner)


def _joined(points: npt.NDArray[np.int64], shape: tuple[int, ...], kind: Kind) -> npt.NDArray[np.int64]:
    """The component each pixel belongs to, found on a coarse grid: a full-size labelling costs ten times as much."""
    height, width = shape
    column, row = points.T // _CELL
    grid = np.zeros((-(-height // _CELL), -(-width // _CELL)), np.uint8)
    grid[row, column] = 1
    radius = max(1, round(MERGE_DISTANCE[kind] * max(height, width) / 2 / _CELL))
    near = cv2.dilate(grid, np.ones((2 * radius + 1, 2 * radius + 1), np.uint8))
    _, label = cv2.connectedComponents(near, connectivity=8, ltype=cv2.CV_32S)
    return np.asarray(label[row, column], np.int64)


def _component_features(
    plane: Plane, residual: Plane | None, points: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], count: int
) -> tuple[Features, npt.NDArray[np.int64]]:
    """One row of features per component, and its box.

    mass and total: log(1 + sum of probabilities) of the component and of the whole frame; support: the same sum, each
    pixel weighted with its residual; peak and core: mean probability of the 16 and 128 strongest pixels; rows and
    columns: the share of the frame's rows and columns it touches, which a box does wholly and a stray line does not.
    """
    height, width = plane.shape
    x, y = points.T
    value = plane[y, x].astype(np.int64)
    probability = value / 255.0
    mass = np.bincount(owner, probability, count)
    seen = 1.0 if residual is None else np.minimum(residual[y, x] / _SUPPORT, 1.0)
    support = np.bincount(owner, probability * seen, count)
    histogram = np.bincount(owner * 256 + value, minlength=count * 256).reshape(count, 256)
    rows = np.bincount(np.unique(owner * height + y) // height, minlength=count)
    columns = np.bincount(np.unique(owner * width + x) // width, minlength=count)
    features = np.stack(
        [
            np.log1p(mass),
            np.log1p(support),
            _strongest_mean(histogram, _PEAK),
            _strongest_mean(histogram, _CORE),
            rows / height,
            columns / width,
            np.full(count, np.log1p(mass.sum())),
        ],
        axis=1,
    )
    left, top = np.full(count, width), np.full(count, height)
    right, bottom = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.minimum.at(left, owner, x)
    np.minimum.at(top, owner, y)
    np.maximum.at(right, owner, x)
    np.maximum.at(bottom, owner, y)
    return features, np.stack([left, top, right - left + 1, bottom - top + 1], axis=1)


def _strongest_mean(histogram: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.float64]:
    """Mean probability of the ``size`` strongest pixels; pixels a small component does not have count as 0."""
    strongest_first = histogram[:, ::-1]
    taken = np.diff(np.minimum(np.cumsum(strongest_first, axis=1), size), axis=1, prepend=0)
    return np.asarray(taken @ np.arange(255, -1, -1) / 255.0 / size, np.float64)


def _box(box: npt.NDArray[np.int64]) -> tuple[int, int, int, int]:
    x, y, width, height = (int(side) for side in box)
    return x, y, width, height


def _nothing() -> Components:
    none = np.zeros(0, np.int64)
    return Components(np.zeros((0, 7)), np.zeros((0, 4), np.int64), none, np.zeros((0, 2), np.int64), none)
