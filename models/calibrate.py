"""Calibration and thresholds, fitted on validation data only: synthetic marks on frames that training never saw, and
those frames as they are."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tomli_w
from rich.progress import track
from scipy.optimize import minimize

from models.corruption import corrupt
from models.dataset import Split, read_frame
from models.errors import TrainingError
from models.pool import resized_kinds
from models.served import Graph, Output, Shares
from models.whole import write_whole
from service.analyse.annotations import Calibration, Kind, Thresholds, by_itself, components

CALIBRATION = "calibration.toml"

_SECOND_LOOK = 0.7  # the scale of all cards that did not say theirs
# Candidates for the pixel threshold; the calibrated score decides among them.
_PIXEL = (0.3, 0.4, 0.5, 0.6)
# Share of the look from afar, for the kinds that are large on a screen. Strokes of the others are thin and fade.
_FAR: Mapping[Kind, float] = {Kind.BODY_MARKER: 0.5, Kind.COLOR_BOX: 0.5}
# Share of close-ups, for every kind: enlarged or not, what both looks see is more likely there.
_CLOSE = 0.5
# Candidates for the probability from which a pixel of a mark that is present belongs to its mask.
_OUTLINE = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
_MIN_PIXELS: Mapping[Kind, int] = {
    Kind.BODY_MARKER: 24,
    Kind.CALIPER: 12,
    Kind.COLOR_BOX: 40,
    Kind.TEXT: 12,
    Kind.ARROW: 16,
}
_RIDGE = 0.002
# From drawn frames to real ones two to five of a hundred are lost: full screens show more that looks like a mark, and
# most of all crosses and lines.
_SPECIFICITY = 0.98
_SPECIFICITIES: Mapping[Kind, float] = {Kind.CALIPER: 0.995}
_CLEAN_SPECIFICITY = 0.99
_REAL_WEIGHT = 2.0
# A mark of which fewer pixels than this share were drawn is none.
_DRAWN_SHARE = 0.2
# A mark with fewer pixels in the frame than this cannot be seen for sure: such frames take no part in the fit.
_VISIBLE_PIXELS = 25
_NO_IMAGE = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Case:
    """One validation frame: the network's answer but for the images themselves, per kind the number of pixels really
    marked, and which they are: ``labels`` uint8 (H, W) as `Sample.labels`, None for a frame nothing was drawn on."""

    output: Output
    marked: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint8] | None

    @property
    def real(self) -> bool:
        return self.labels is None


def cases(graph: Graph, parts: Split, samples: int, seed: int) -> Iterator[Case]:
    """Every validation frame as it is, and ``samples`` of them with synthetic marks of training's styles."""
    frames = parts.validation
    rng = np.random.default_rng(seed)
    # As many from each data set: the large held-out one must not decide alone.
    sources = sorted({frame.source for frame in frames})
    by_source = {source: [frame for frame in frames if frame.source == source] for source in sources}
    for frame in track(frames, "Clean frames", transient=True):
        yield Case(_without_images(graph(read_frame(frame.path))), np.zeros(len(Kind), np.int64), None)
    for _ in track(range(samples), "Synthetic frames", transient=True):
        among = by_source[sources[int(rng.integers(len(sources)))]]
        sample = corrupt(read_frame(among[int(rng.integers(len(among)))].path), rng, held_out=False)
        marked = np.bincount(sample.labels.ravel(), minlength=len(Kind) + 1)[1:]
        output = graph(sample.noisy)
        yield Case(_without_images(output), marked, resized_kinds(sample.labels, *output.frame.shape[1::-1]))


def _without_images(output: Output) -> Output:
    """What is left takes half of the memory, and all cases are held at once."""
    return replace(output, frame=_NO_IMAGE, restoration=_NO_IMAGE)


@dataclass(frozen=True)
class Fitted:
    thresholds: Thresholds
    calibration: Calibration
    loss: float
    sensitivity: float
    specificity: float


def fit(found: list[Case], kind: Kind) -> Fitted:
    """Calibration and thresholds of one kind; the pixel threshold with the least log loss wins.

    Raises `TrainingError` where no frame shows the kind, or every one does.
    """
    marked = [int(case.marked[list(Kind).index(kind)]) for case in found]
    for there, what in ((max(marked) >= _VISIBLE_PIXELS, "shows"), (min(marked) == 0, "lacks")):
        if not there:
            cure = "Draw more of them by `--samples`, or hold out more frames in the recipe's `split`."
            raise TrainingError(f"Of {len(found)} validation frames none {what} the kind {kind}.", cure=cure)
    far = _FAR.get(kind, 0.0) if all(case.output.far is not None for case in found) else 0.0
    close = _CLOSE if all(case.output.closely is not None for case in found) else 0.0
    found = seen(found, kind, far, close)
    best = min((_fit_at(found, kind, pixel) for pixel in _PIXEL), key=lambda fitted: fitted.loss)
    level = max(best.thresholds.pixel, outline(found, kind))
    limits = replace(best.thresholds, outline=level, far=far, close=close)
    return replace(best, thresholds=replace(limits, beside=beside(found, kind, limits, best.calibration)))


def seen(found: list[Case], kind: Kind, far: float, close: float) -> list[Case]:
    """The cases as this kind is seen when the look from afar has share ``far`` and close-ups ``close``; the planes of
    all others show this kind as well, for they share its memory."""
    number = list(Kind).index(kind)
    own = slice(number, number + 1)

    def alone(output: Output) -> Output:
        closely = None if output.closely is None else tuple((place, planes[own]) for place, planes in output.closely)
        distant = None if output.far is None else output.far[own]
        one = replace(output, kinds=output.kinds[own], far=distant, closely=closely).together(Shares([far], [close]))
        return replace(one, kinds=np.broadcast_to(one.kinds, output.kinds.shape))

    return [replace(case, output=alone(case.output)) for case in found]


def outline(found: list[Case], kind: Kind) -> float:
    """The probability from which pixels overlap best (Dice, all frames together) with those drawn."""
    number = list(Kind).index(kind) + 1
    overlap = np.zeros((len(_OUTLINE), 2))
    for case in found:
        if case.labels is None or not case.marked[number - 1]:
            continue
        truth, plane = case.labels == number, case.output.kinds[number - 1]
        for row, level in enumerate(_OUTLINE):
            mask = plane >= level * 255
            overlap[row] += 2 * np.count_nonzero(mask & truth), np.count_nonzero(mask) + np.count_nonzero(truth)
    dice = overlap[:, 0] / np.maximum(overlap[:, 1], 1)
    return _OUTLINE[int(dice.argmax())]


def beside(found: list[Case], kind: Kind, limits: Thresholds, calibration: Calibration) -> float:
    """The score a weaker mark needs by itself for the listed marks to be right most often (F1 over the marks of frames
    that show the kind for sure)."""
    number = list(Kind).index(kind) + 1
    listed: list[tuple[float, bool]] = []  # what each scores alone, and whether it was drawn
    for case in found:
        if case.labels is None:
            continue
        plane = case.output.kinds[number - 1]
        marks = components(plane, case.output.residual, kind, limits.pixel, limits.min_pixels)
        score = calibration.score(marks.features)
        if score.max(initial=0.0) < limits.present:
            continue
        alone = calibration.score(by_itself(marks.features))
        alone[score.argmax()] = 1.0  # the strongest is listed whatever it scores alone
        x, y = marks.points.T
        drawn = np.bincount(marks.owner, case.labels[y, x] == number) / marks.pixels
        sure = score >= limits.present
        listed += zip(alone[sure].tolist(), (drawn[sure] > _DRAWN_SHARE).tolist(), strict=True)
    if not listed:
        return 0.0
    alone_of_all, real = (np.array(column) for column in zip(*listed, strict=True))
    levels = np.r_[0.0, np.linspace(limits.absent / 4, limits.present, 16)]
    kept = alone_of_all >= levels[:, None]
    f1 = 2 * (kept & real).sum(axis=1) / np.maximum(kept.sum(axis=1) + real.sum(), 1)
    return round(float(levels[int(f1.argmax())]), 4)


def _fit_at(found: list[Case], kind: Kind, pixel: float) -> Fitted:
    plane = list(Kind).index(kind)
    known = [case for case in found if case.marked[plane] == 0 or case.marked[plane] >= _VISIBLE_PIXELS]
    truth = np.array([case.marked[plane] > 0 for case in known])
    marks = [
        components(case.output.kinds[plane], case.output.residual, kind, pixel, _MIN_PIXELS[kind]).features
        for case in known
    ]
    # The strongest component speaks for its frame; a frame without any scores 0 whatever the weights.
    strongest = np.array([features[features[:, 0].argmax()] if len(features) else np.zeros(7) for features in marks])
    calibration = logistic(strongest, truth)
    scores = np.array([float(calibration.score(features).max(initial=0.0)) for features in marks])
    clean = np.array([case.real for case in known])
    absent, present = bands(scores, truth, clean, _SPECIFICITIES.get(kind, _SPECIFICITY))
    clipped = np.clip(scores, 1e-3, 1 - 1e-3)
    loss = float(-(np.where(truth, np.log(clipped), np.log(1 - clipped)) * _balance(truth)).mean())
    limits = Thresholds(pixel, _MIN_PIXELS[kind], absent, present)
    return Fitted(
        limits, calibration, loss, float((scores[truth] >= present).mean()), float((scores[~truth] < present).mean())
    )


def logistic(features: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> Calibration:
    """Ridge logistic regression with weights >= 0, both classes weighing the same."""
    sign = np.where(truth, 1.0, -1.0)
    weight = _balance(truth)
    columns = np.column_stack([np.ones(len(features)), features])
    ridge = np.r_[0.0, np.full(features.shape[1], _RIDGE)]

    def loss(w: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        margin = sign * (columns @ w)
        slope = -sign * weight / (1 + np.exp(np.clip(margin, -500, 500)))
        return (
            float((weight * np.logaddexp(0, -margin)).mean() + (ridge * w * w).sum()),
            columns.T @ slope / len(sign) + 2 * ridge * w,
        )

    bounds = [(None, None)] + [(0.0, None)] * features.shape[1]
    best = minimize(loss, np.zeros(columns.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B")
    return Calibration(*(round(float(value), 5) for value in best.x))


def bands(
    scores: npt.NDArray[np.float64],
    truth: npt.NDArray[np.bool_],
    clean: npt.NDArray[np.bool_],
    least_specificity: float = _SPECIFICITY,
) -> tuple[float, float]:
    """Where a kind is absent and where it is present.

    ``present`` parts marked frames from others best (Youden's index) among the scores that keep ``least_specificity``
    on all unmarked frames and of 99 % on the ``clean`` real ones. Real frames weigh twice as much as synthetic ones,
    which crowd several kinds into one frame as a hospital's frames seldom do. ``absent`` lies where fewer than 5 % of
    the marked frames that show anything score less, and no lower than 95 % of the clean frames: a frame without a mark
    must be able to say so.
    """
    levels = np.unique(np.r_[0.0, scores, 1.0])
    middles = (levels[:-1] + levels[1:]) / 2
    sensitivity = np.array([(scores[truth] >= level).mean() for level in middles])
    weight = np.where(clean, _REAL_WEIGHT / max(int(clean.sum()), 1), 1 / max(int((~truth & ~clean).sum()), 1))[~truth]
    specificity = np.array([np.average(scores[~truth] < level, weights=weight) for level in middles])
    on_clean = np.array([(scores[clean] < level).mean() if clean.any() else 1.0 for level in middles])
    allowed = (specificity >= least_specificity) & (on_clean >= _CLEAN_SPECIFICITY)
    youden = np.where(allowed, sensitivity + specificity, -1.0)
    present = float(np.median(middles[youden >= youden.max() - 0.002]))
    shown = scores[truth & (scores > 0)]
    absent = min(float(np.quantile(shown, 0.05)) if len(shown) else 0.0, present * 0.8)
    if clean.any():
        absent = min(max(absent, float(np.quantile(scores[clean], 0.95))), present * 0.8)
    return round(max(absent, 0.01), 4), round(max(present, 0.02), 4)


def _balance(truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    share = np.clip(truth.mean(), 1e-3, 1 - 1e-3)
    return np.where(truth, 0.5 / share, 0.5 / (1 - share))


def calibrate(
    graph: Graph,
    parts: Split,
    run: Path,
    samples: int,
    seed: int,
    tell: Callable[[str], None],
    weights: str | None = None,
) -> Path:
    """Fit every kind and write the run's calibration file, with the digest of the ``weights`` that it is of."""
    found = list(cases(graph, parts, samples, seed))
    fitted = {kind: fit(found, kind) for kind in Kind}
    for kind, result in fitted.items():
        tell(
            f"{kind:12} sensitivity {result.sensitivity:.3f}  specificity {result.specificity:.3f}"
            f"  log loss {result.loss:.3f}"
            f"  share from afar {result.thresholds.far:g}, close {result.thresholds.close:g}"
        )
    tables: dict[str, Any] = {
        **({} if weights is None else {"weights": weights}),
        "second_look": graph.second_look if any(result.thresholds.far for result in fitted.values()) else 0.0,
        "close_ups": graph.most_close_ups,
        "thresholds": {kind.value: asdict(result.thresholds) for kind, result in fitted.items()},
        "calibration": {kind.value: asdict(result.calibration) for kind, result in fitted.items()},
    }
    return write_whole(run / CALIBRATION, tomli_w.dumps(tables))


def read_calibration(path: Path, weights: str) -> dict[str, Any]:
    """How an output is to be read, as the card says it: ``second_look``, ``close_ups``, ``thresholds`` and
    ``calibration``. Raises `TrainingError` when there is none, or it is of others than the ``weights`` of this digest;
    files from before do not say of which they are."""
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as broken:
        raise TrainingError(
            f"{path.parent} is not calibrated.", cure="Run `python -m models calibrate RUN --data FOLDER` first."
        ) from broken
    if tables.get("weights", weights) != weights:
        raise TrainingError(
            f"{path} was fitted on other weights than the run has now.",
            cure="Calibrate again: `python -m models calibrate RUN --data FOLDER`.",
        )
    reading = {name: tables[name] for name in ("thresholds", "calibration")}
    # Files from before the scale was written beside the shares were all fitted at the same one.
    seen_far = any(limits.get("far") for limits in reading["thresholds"].values())
    again = {
        "second_look": tables.get("second_look", _SECOND_LOOK if seen_far else 0.0),
        "close_ups": tables.get("close_ups", 0),
    }
    return again | reading
