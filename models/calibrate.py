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
from models.dataset import Frame, Split, read_frame
from models.errors import TrainingError
from models.pool import resized_kinds
from models.served import Graph, Output, Shares
from models.whole import write_whole
from service.analyse.annotations import Calibration, Features, Kind, Thresholds, by_itself, components

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


@dataclass(frozen=True)
class Marks:
    """The marks of one kind at one pixel threshold: ``features`` (n, 7), as `components` has them, and of each mark the
    share of its pixels that were ``drawn`` (n,)."""

    features: Features
    drawn: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One kind in one validation frame, as far as the fit looks at it: kilobytes, where the frame's planes take
    megabytes.

    Nothing was drawn on a ``real`` frame; on others ``marked`` pixels of the kind were. ``marks`` are those found, by
    the candidates of the pixel threshold. ``overlap``, shape (len(_OUTLINE), 2), has for each candidate of the outline
    the numerator and the denominator of Dice, in pixels of the mask and of what was drawn.
    """

    real: bool
    marked: int
    marks: Mapping[float, Marks]
    overlap: npt.NDArray[np.float64]


def cases(graph: Graph, parts: Split, samples: int, seed: int) -> Iterator[dict[Kind, Case]]:
    """Every validation frame as it is, and ``samples`` of them with synthetic marks of training's styles; nothing of a
    frame is held beyond its cases, one for each kind."""
    frames, shares = parts.validation, shares_of(graph)
    rng = np.random.default_rng(seed)
    # As many from each data set: the large held-out one must not decide alone.
    sources = sorted({frame.source for frame in frames})
    by_source = {source: [frame for frame in frames if frame.source == source] for source in sources}
    for frame in track(frames, "Clean frames", transient=True):
        output = graph(read_frame(frame.path)).together(shares)
        yield {kind: case_of(output, kind) for kind in Kind}
    for _ in track(range(samples), "Synthetic frames", transient=True):
        among = by_source[sources[int(rng.integers(len(sources)))]]
        sample = corrupt(read_frame(among[int(rng.integers(len(among)))].path), rng, held_out=False)
        marked = np.bincount(sample.labels.ravel(), minlength=len(Kind) + 1)[1:]
        output = graph(sample.noisy).together(shares)
        labels = resized_kinds(sample.labels, *output.frame.shape[1::-1])
        yield {kind: case_of(output, kind, labels, int(count)) for kind, count in zip(Kind, marked, strict=True)}


def shares_of(graph: Graph) -> Shares:
    """How much the graph's further looks count for each kind, where it takes them."""
    far = [_FAR.get(kind, 0.0) if graph.second_look else 0.0 for kind in Kind]
    return Shares(far, [_CLOSE if graph.most_close_ups else 0.0] * len(Kind))


def case_of(output: Output, kind: Kind, labels: Frame | None = None, marked: int = 0) -> Case:
    """What the fit looks at of an output, all looks together. ``labels``, uint8 (H, W) as `Sample.labels`, say what was
    drawn, ``marked`` how many pixels of the kind before the frame was reduced; without labels the frame is real."""
    number = list(Kind).index(kind)
    plane = output.kinds[number]
    drawn = np.zeros(plane.shape, np.bool_) if labels is None else labels == number + 1

    def found(pixel: float) -> Marks:
        marks = components(plane, output.residual, kind, pixel, _MIN_PIXELS[kind])
        x, y = marks.points.T
        return Marks(marks.features, np.bincount(marks.owner, drawn[y, x]) / marks.pixels)

    overlap = np.zeros((len(_OUTLINE), 2))
    if marked:
        for row, level in enumerate(_OUTLINE):
            mask = plane >= level * 255
            overlap[row] = 2 * np.count_nonzero(mask & drawn), np.count_nonzero(mask) + np.count_nonzero(drawn)
    return Case(labels is None, marked, {pixel: found(pixel) for pixel in _PIXEL}, overlap)


@dataclass(frozen=True)
class Fitted:
    thresholds: Thresholds
    calibration: Calibration
    loss: float
    sensitivity: float
    specificity: float


def fit(found: list[Case], kind: Kind, far: float = 0.0, close: float = 0.0) -> Fitted:
    """Calibration and thresholds of one kind from its cases, in which the look from afar has the share ``far`` and
    close-ups have ``close``; the pixel threshold with the least log loss wins.

    Raises `TrainingError` where no frame shows the kind, or every one does.
    """
    marked = [case.marked for case in found]
    for there, what in ((max(marked) >= _VISIBLE_PIXELS, "shows"), (min(marked) == 0, "lacks")):
        if not there:
            cure = "Draw more of them by `--samples`, or hold out more frames in the recipe's `split`."
            raise TrainingError(f"Of {len(found)} validation frames none {what} the kind {kind}.", cure=cure)
    best = min((_fit_at(found, kind, pixel) for pixel in _PIXEL), key=lambda fitted: fitted.loss)
    level = max(best.thresholds.pixel, outline(found))
    limits = replace(best.thresholds, outline=level, far=far, close=close)
    return replace(best, thresholds=replace(limits, beside=beside(found, limits, best.calibration)))


def outline(found: list[Case]) -> float:
    """The probability from which pixels overlap best (Dice, all frames together) with those drawn."""
    overlap = np.sum([case.overlap for case in found], axis=0)
    dice = overlap[:, 0] / np.maximum(overlap[:, 1], 1)
    return _OUTLINE[int(dice.argmax())]


def beside(found: list[Case], limits: Thresholds, calibration: Calibration) -> float:
    """The score a weaker mark needs by itself for the listed marks to be right most often (F1 over the marks of frames
    that show the kind for sure)."""
    listed: list[tuple[float, bool]] = []  # what each scores alone, and whether it was drawn
    for case in found:
        if case.real:
            continue
        marks = case.marks[limits.pixel]
        score = calibration.score(marks.features)
        if score.max(initial=0.0) < limits.present:
            continue
        alone = calibration.score(by_itself(marks.features))
        alone[score.argmax()] = 1.0  # the strongest is listed whatever it scores alone
        sure = score >= limits.present
        listed += zip(alone[sure].tolist(), (marks.drawn[sure] > _DRAWN_SHARE).tolist(), strict=True)
    if not listed:
        return 0.0
    alone_of_all, real = (np.array(column) for column in zip(*listed, strict=True))
    levels = np.r_[0.0, np.linspace(limits.absent / 4, limits.present, 16)]
    kept = alone_of_all >= levels[:, None]
    f1 = 2 * (kept & real).sum(axis=1) / np.maximum(kept.sum(axis=1) + real.sum(), 1)
    return round(float(levels[int(f1.argmax())]), 4)


def _fit_at(found: list[Case], kind: Kind, pixel: float) -> Fitted:
    known = [case for case in found if case.marked == 0 or case.marked >= _VISIBLE_PIXELS]
    truth = np.array([case.marked > 0 for case in known])
    marks = [case.marks[pixel].features for case in known]
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
    weights: npt.NDArray[np.float64] = np.where(truth, 0.5 / share, 0.5 / (1 - share))
    return weights


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
    found, shares = list(cases(graph, parts, samples, seed)), shares_of(graph)
    fitted = {
        kind: fit([each[kind] for each in found], kind, far, close)
        for kind, far, close in zip(Kind, *shares, strict=True)
    }
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
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        reading = {name: tables[name] for name in ("thresholds", "calibration")}
    except (OSError, ValueError, KeyError) as broken:
        raise TrainingError(
            f"{path.parent} is not calibrated.", cure="Run `python -m models calibrate RUN --data FOLDER` first."
        ) from broken
    if tables.get("weights", weights) != weights:
        raise TrainingError(
            f"{path} was fitted on other weights than the run has now.",
            cure="Calibrate again: `python -m models calibrate RUN --data FOLDER`.",
        )
    # Files from before the scale was written beside the shares were all fitted at the same one.
    seen_far = any(limits.get("far") for limits in reading["thresholds"].values())
    again = {
        "second_look": tables.get("second_look", _SECOND_LOOK if seen_far else 0.0),
        "close_ups": tables.get("close_ups", 0),
    }
    return again | reading
