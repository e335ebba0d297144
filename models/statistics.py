"""Proportions and areas under the curve, with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata
from scipy.stats import t as student


@dataclass(frozen=True)
class Estimate:
    """A value with its interval at 95 %, and how many cases it rests on."""

    value: float
    low: float
    high: float
    cases: int

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f}, n={self.cases})" if self.cases else "no cases"


def proportion(successes: int, cases: int, confidence: float = 0.95) -> Estimate:
    """Wilson's score interval: right for few cases and for shares near 0 and 1."""
    if cases == 0:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    z = float(norm.ppf((1 + confidence) / 2))
    share = successes / cases
    centre = (share + z * z / (2 * cases)) / (1 + z * z / cases)
    half = z * np.sqrt(share * (1 - share) / cases + z * z / (4 * cases * cases)) / (1 + z * z / cases)
    return Estimate(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)), cases)


def auroc(scores: npt.ArrayLike, truth: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """Area under the ROC curve (ties count half) with Hanley and McNeil's interval (Radiology 1982; 143: 29-36)."""
    scores, truth = np.asarray(scores, float), np.asarray(truth, bool)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return Estimate(float("nan"), 0.0, 1.0, 0)
    ranks = rankdata(scores)
    area = (ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    q1, q2 = area / (2 - area), 2 * area * area / (1 + area)
    variance = (area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)) / (
        positives * negatives
    )
    half = float(norm.ppf((1 + confidence) / 2)) * np.sqrt(max(variance, 0.0))
    return Estimate(float(area), max(0.0, float(area - half)), min(1.0, float(area + half)), positives + negatives)


@dataclass(frozen=True)
class Mean:
    """A mean and half of its 95 % confidence interval (Student's t)."""

    value: float
    half: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.half:.3f}"


def mean_interval(values: npt.ArrayLike, confidence: float = 0.95) -> Mean:
    """The mean of independent values; the interval of a single one has no width."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return Mean(float(values.mean()), float("nan"))
    spread = float(student.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return Mean(float(values.mean()), spread)
