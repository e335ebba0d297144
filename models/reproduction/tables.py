"""`python -m models tables`: every table and figure of the paper by one command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console

from models.machine import keep_freed_memory
from models.reproduction import run
from models.reproduction.recipes import recipes
from models.reproduction.report import Report
from models.reproduction.scales import scale


def tables(
    scale_name: str, data: Path, out: Path, document: Path, console: Console, time_budget_min: float | None = None
) -> Path:
    """Run what is missing, then write the document from everything `out` holds at this scale.

    `out` keeps drawn crops and finished cells: a second call goes on where the first was stopped. Raises `RecipeError`,
    `DataError` and `LeakySplit`.
    """
    keep_freed_memory()
    chosen, every = scale(scale_name), recipes()
    workshop = run.Workshop(data, out, chosen)
    workshop.finish(every, console, time_budget_min)
    report = Report(
        scale=chosen,
        recipes=every,
        wanted=len(workshop.jobs(every)),
        results=workshop.finished(every),
        examples=lambda kind, pipeline: workshop.crops(kind, pipeline).examples,
        answers=lambda result: np.load(workshop.path(run.Job(result.cell, result.seed)).with_suffix(".npy")),
    )
    report.write(document)
    return document
