"""Intervals and control limits of proportions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)
SIGMAS = 3.0  # of a Shewhart p-chart
FEWEST_EXPECTED = 5.0  # below this many expected cases the normal limits of a p-chart mean little


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float] | None:
    """Wilson's score interval of a proportion (J Am Stat Assoc 1927;22:209), None without trials."""
    if trials == 0:
        return None
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    # At the ends the interval reaches 0 and 1 exactly, whatever the rounding says.
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / whole)
    high = 1.0 if successes == trials else min(1.0, (centre + half) / whole)
    return low, high


def p_limits(mean: float, trials: int, sigmas: float = SIGMAS) -> tuple[float, float] | None:
    """Limits within which a share of ``trials`` varies by chance alone around ``mean``; None without trials."""
    if trials == 0:
        return None
    spread = sigmas * sqrt(mean * (1 - mean) / trials)
    return max(0.0, mean - spread), min(1.0, mean + spread)


def is_small(mean: float, trials: int) -> bool:
    """Whether so few cases are to be expected that limits on them say little."""
    return trials * min(mean, 1 - mean) < FEWEST_EXPECTED


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two readers' answers to the same studies; None where it is not defined."""
    if not pairs:
        return None
    names = {name for pair in pairs for name in pair}
    total = len(pairs)
    agreed = sum(one == other for one, other in pairs) / total
    chance = sum(
        sum(one == name for one, _ in pairs) / total * (sum(other == name for _, other in pairs) / total)
        for name in names
    )
    return None if chance == 1.0 else (agreed - chance) / (1 - chance)


def kappa_interval(pairs: Sequence[tuple[str, str]], z: float = Z95) -> tuple[float, float] | None:
    """Interval of Cohen's kappa by its large-sample variance (Fleiss, Cohen, Everitt, Psychol Bull 1969;72:323).

    Within [-1, 1]; None where kappa is not defined, or where the answers leave no room to estimate its spread, as when
    all agree.
    """
    value = kappa(pairs)
    if value is None:
        return None
    total = len(pairs)
    first = Counter(one for one, _ in pairs)
    second = Counter(other for _, other in pairs)
    chance = sum(first[name] * second[name] for name in first) / total**2
    disagreement = 1 - value
    spread = -((value - chance * disagreement) ** 2)
    for (one, other), count in Counter(pairs).items():
        margins = (first[other] + second[one]) / total
        weight = 1 - margins * disagreement if one == other else -margins * disagreement
        spread += count / total * weight**2
    half = z * sqrt(max(0.0, spread) / total) / (1 - chance)
    return (max(-1.0, value - half), min(1.0, value + half)) if half > 1e-12 else None
