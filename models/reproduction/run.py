"""Runs the cells of the tables, one after the other; can be stopped and started again at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.flop_counter import FlopCounterMode

from models.dataset import clean_frames
from models.reproduction import crops, results
from models.reproduction.datasets import parts
from models.reproduction.licences import may_be_shown
from models.reproduction.pipelines import pipeline
from models.reproduction.recipes import UNTRAINED, Cell, Recipe
from models.reproduction.results import Result
from models.reproduction.scales import Scale
from models.reproduction.scoring import score
from models.reproduction.training import (
    batch_of,
    described,
    device_at_hand,
    network_of,
    restorations,
    steps_of,
    train,
)

TEST_SOURCES = ("usgra", "ccaus", "brest", "timtrack_ds1")
"""Data sets that only the tables see."""
VALIDATION_SOURCES = ("timtrack_ds2", "carotids", "sonocrop")
"""Data sets that only thresholds are chosen on."""


@dataclass(frozen=True)
class Job:
    """One cell and seed: the unit that is done or not done."""

    cell: Cell
    seed: int


class Workshop:
    """A folder of clean frames, a scale, and the folder `out` where crops and finished cells are kept."""

    def __init__(self, folder: Path, out: Path, scale: Scale) -> None:
        self.folder, self.out, self.scale = folder, out, scale
        self._frames = parts(clean_frames(folder), VALIDATION_SOURCES, TEST_SOURCES, scale.data_seed)
        self.cells.mkdir(parents=True, exist_ok=True)

    @cached_property
    def cells(self) -> Path:
        """Where finished cells lie: none that was run on other frames, or at another size of the scale, counts here."""
        parts_ = {
            name: [(f.named_from(self.folder), f.source, f.group) for f in getattr(self._frames, name)]
            for name in ("training", "validation", "test")
        }
        digest = sha256(json.dumps([asdict(self.scale), parts_]).encode()).hexdigest()[:8]
        return self.out / f"{self.scale.name}-{digest}" / "cells"

    def path(self, job: Job) -> Path:
        """The JSON file that says a job is done; its checkpoint and its pictures lie beside it."""
        return self.cells / f"{job.cell.slug(job.seed)}.json"

    def crops(self, kind: str, pipeline_: str) -> crops.Data:
        """The crops of one kind as a pipeline makes them."""
        home = self.out / "data"
        return crops.data(home, self.folder, self._frames, may_be_shown, kind, pipeline(pipeline_), self.scale)

    def jobs(self, recipes: Sequence[Recipe]) -> list[Job]:
        """Every cell once for each seed; what a short run should have done comes first.

        All tables with one seed come before the next seed, the network of the paper before the others, which follow
        table by table and from cheap to dear, and what compares networks and schemes before what varies loss, input and
        optimiser.
        """

        kinds = list(dict.fromkeys(recipe.kind for recipe in recipes))

        def place(cell: Cell) -> tuple[bool, int, float, bool]:
            other = cell.network not in (*UNTRAINED, "costumed_unet")
            varied = (cell.loss, cell.input, cell.optimiser) != ("L1", "linear", "AdamW")
            return other, kinds.index(cell.kind) if other else 0, gflop(cell.network), varied

        ordered = sorted(dict.fromkeys(cell for recipe in recipes for cell in recipe.cells), key=place)
        first, *further = self.scale.seeds
        # What learns nothing answers alike for every seed.
        learning = [cell for cell in ordered if cell.network not in UNTRAINED]
        return [Job(cell, first) for cell in ordered] + [Job(cell, seed) for seed in further for cell in learning]

    def finished(self, recipes: Sequence[Recipe]) -> list[Result]:
        return [results.read(self.path(job)) for job in self.jobs(recipes) if self.path(job).exists()]

    def finish(self, recipes: Sequence[Recipe], console: Console, time_budget_min: float | None) -> None:
        """Train and measure every job that is not done; with a budget, none that would not end within it."""
        missing = [job for job in self.jobs(recipes) if not self.path(job).exists()]
        budget = _Budget(time_budget_min)
        # All data first, so that every cell sees marks drawn by the same hand.
        for kind, pipeline_ in dict.fromkeys((job.cell.kind, job.cell.pipeline) for job in missing):
            self.crops(kind, pipeline_)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=600) as progress:
            work = progress.add_task("tables", total=sum(self._tflop(job) for job in missing))
            for number, job in enumerate(missing):
                tflop = self._tflop(job)
                if not budget.allows(tflop):
                    progress.console.print(f"The time budget is spent; {len(missing) - number} cells are left.")
                    return
                progress.update(work, description=f"{number + 1}/{len(missing)} {job.cell.kind} {job.cell.network}")
                per_step = tflop / max(1, steps_of(job.cell, self.scale))
                started = time.monotonic()
                self._do(job, _in_steps(progress, work, per_step))
                budget.learn(tflop, time.monotonic() - started)
                if not console.is_terminal:
                    _tell(
                        console,
                        job,
                        number + 1,
                        len(missing),
                        budget.expected(sum(map(self._tflop, missing[number + 1 :]))),
                    )

    def _do(self, job: Job, advance: Callable[[int], None]) -> None:
        """Train, score and write one cell: the pictures first, the JSON that says it is finished last."""
        data = self.crops(job.cell.kind, job.cell.pipeline)
        started, path = time.monotonic(), self.path(job)
        checkpoint = path.with_suffix(".pt")
        trained = train(job.cell, self.scale, job.seed, data, checkpoint, advance)
        scores = score(trained.network, job.cell, data)
        np.save(path.with_suffix(".npy"), restorations(trained.network, job.cell, data.examples.noisy))
        Result(
            cell=job.cell,
            scale=self.scale,
            seed=job.seed,
            parameters=sum(weight.numel() for weight in trained.network.parameters()),
            threshold=scores.threshold,
            diverged=trained.diverged,
            seconds=round(time.monotonic() - started, 1),
            values=scores.values,
            groups=list(data.test.groups),
            curve=[vars(point) for point in trained.curve],
            device=described(device_at_hand()),
        ).write(path)
        checkpoint.unlink(missing_ok=True)

    def _tflop(self, job: Job) -> float:
        """Forward and backward, the latter twice the former, over all crops seen."""
        seen = steps_of(job.cell, self.scale) * batch_of(job.cell, self.scale)
        return 3 * gflop(job.cell.network) * (self.scale.side / 64) ** 2 * seen / 1000


def _in_steps(progress: Progress, work: TaskID, per_step: float) -> Callable[[int], None]:
    """Advances the bar by what so many steps of a job weigh."""
    return lambda steps: progress.advance(work, steps * per_step)


def _tell(console: Console, job: Job, done: int, of: int, left_s: float) -> None:
    """A line of a log, which shows no bar."""
    cell = job.cell
    name = f"{cell.kind} {cell.network} {cell.scheme} {cell.input} {cell.loss} {cell.optimiser} {cell.pipeline}"
    console.print(f"{done}/{of} {name}, seed {job.seed}; about {left_s / 60:.0f} minutes left", soft_wrap=True)


@cache
def gflop(network: str) -> float:
    """Floating-point operations in units of 10⁹ of one pass over a crop of 64 pixels."""
    if network in UNTRAINED:
        return 0.0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network_of(network).eval()(torch.zeros(1, 3, 64, 64))
    return float(counter.get_total_flops() / 1e9)


class _Budget:
    """Minutes to spend; learns from the cells done how long a TFLOP takes."""

    def __init__(self, minutes: float | None) -> None:
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes
        self._tflop, self._seconds = 0.0, 0.0

    def allows(self, tflop: float) -> bool:
        if self._ends is None:
            return True
        return time.monotonic() + self.expected(tflop) < self._ends

    def expected(self, tflop: float) -> float:
        """Seconds that so much work will take."""
        return self._seconds / self._tflop * tflop if self._tflop else 0.0

    def learn(self, tflop: float, seconds: float) -> None:
        self._tflop += tflop
        self._seconds += seconds
