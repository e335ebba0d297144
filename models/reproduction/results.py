"""A finished cell as a JSON file, and what a table prints of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from models.reproduction.recipes import Cell
from models.reproduction.scales import Scale
from models.statistics import mean_interval
from models.whole import write_whole


@dataclass(frozen=True)
class Result:
    """Scores and curve of one cell and seed; `groups` names the patient group of every test crop."""

    cell: Cell
    scale: Scale
    seed: int
    parameters: int
    threshold: int | None
    diverged: int | None
    seconds: float
    values: dict[str, list[float]]
    groups: list[str]
    curve: list[dict[str, float]]
    device: str = "cpu"

    def write(self, path: Path) -> None:
        """Whole or not at all: a run that is cut off here starts the cell again."""
        write_whole(path, json.dumps(asdict(self)))


def read(path: Path) -> Result:
    stored: dict[str, Any] = json.loads(path.read_text())
    scale = stored.pop("scale")
    return Result(cell=Cell(**stored.pop("cell")), scale=Scale(**{**scale, "seeds": tuple(scale["seeds"])}), **stored)


@dataclass(frozen=True)
class Interval:
    """A mean and half of its 95 % confidence interval; `over` says what varies: seeds or patient groups."""

    mean: float
    half: float
    over: str

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of zero, else 0."""
        return 0 if not abs(self.mean) > self.half else int(np.sign(self.mean))


def interval(results: list[Result], metric: str) -> Interval:
    """Over seeds where there are at least two, else over the patient groups of the only seed."""
    return _interval([result.values[metric] for result in results], results[0].groups)


def difference(ones: list[Result], others: list[Result], metric: str) -> Interval:
    """How far the first cell is ahead of the second on the same crops, seed by seed or group by group."""
    by_seed = {result.seed: result for result in others}
    pairs = [(result, by_seed[result.seed]) for result in ones if result.seed in by_seed]
    gaps = [np.subtract(one.values[metric], other.values[metric]).tolist() for one, other in pairs]
    return _interval(gaps, ones[0].groups)


def _interval(by_seed: list[list[float]], groups: list[str]) -> Interval:
    if len(by_seed) == 1:
        return _over_groups(by_seed[0], groups)
    seeds = mean_interval([float(np.mean(values)) for values in by_seed])
    return Interval(seeds.value, seeds.half, "seeds")


def _over_groups(values: list[float], groups: list[str]) -> Interval:
    """Crops of one patient resemble each other, so deviations are summed by group before they are squared."""
    mean = float(np.mean(values))
    sums: dict[str, float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    if len(sums) < 2:
        return Interval(mean, float("nan"), "patient groups")
    error = (len(sums) / (len(sums) - 1) * sum(one**2 for one in sums.values())) ** 0.5 / len(values)
    return Interval(mean, float(student.ppf(0.975, len(sums) - 1) * error), "patient groups")
