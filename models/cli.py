"""The training module's commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console

from models.errors import DataError, of_the_system
from service.errors import SonomarkError

app = typer.Typer(help="Train, calibrate, evaluate and export Sonomark's networks.", no_args_is_help=True)
console = Console(stderr=True)
WEIGHTS = Path(__file__).with_name("weights") / "sonomark"

Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch.")]
Data = Annotated[
    Path, typer.Option(help="Folder with frames, or with a CSV listing them.", exists=True, file_okay=False)
]


@app.callback()
def main() -> None:
    """Sonomark's training module."""


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe in models/recipes, or a TOML file.")],
    data: Data,
    out: Annotated[Path | None, typer.Option(help="The run's folder (default runs/RECIPE-TIME).")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            help="Go on with a run that ended, or by a changed recipe; one that was cut off does so by itself."
        ),
    ] = False,
    start_from: Annotated[
        Path | None,
        typer.Option(
            help="Begin with the weights of this run or weights folder, or grow them.", exists=True, file_okay=False
        ),
    ] = None,
    time_budget: Annotated[float | None, typer.Option(min=0, help="Minutes; the schedule ends with them.")] = None,
    threads: Threads = None,
) -> None:
    """Train by a recipe on clean frames."""
    import torch

    from models import recipe as recipes
    from models import train as training
    from models.distributed import end_process

    if threads:
        torch.set_num_threads(threads)
    with _told():
        chosen = recipes.load(recipe)
        run = out or Path("runs") / f"{chosen.name}-{datetime.now():%Y%m%d-%H%M%S}"
        training.train(chosen, data, run, resume=resume, start_from=start_from, time_budget_min=time_budget)
        _say(f"Trained: {run}")
    end_process()


Run = Annotated[Path, typer.Argument(help="A run's folder.", exists=True, file_okay=False)]


@app.command()
def average(
    runs: Annotated[list[Path], typer.Argument(help="Runs that started from one another.", exists=True)],
    out: Annotated[Path, typer.Option(help="The new run's folder.")],
) -> None:
    """Average the weights of successive runs into one run."""
    from models.runs import average_runs

    with _told():
        _say(f"Averaged: {average_runs(runs, out)}")


@app.command()
def calibrate(
    run: Run,
    data: Data,
    samples: Annotated[int, typer.Option(min=1, help="Synthetic validation frames.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the synthetic frames.")] = 11,
    second_look: Annotated[
        float, typer.Option(min=0, max=0.95, help="Scale of a second look from afar; 0 for none.")
    ] = 0.0,
    close_ups: Annotated[
        int, typer.Option(min=0, max=16, help="Places of a frame that are seen once more, enlarged, at most.")
    ] = 0,
) -> None:
    """Fit presence scores and thresholds on the run's validation frames."""
    from models import calibrate as calibration
    from models import export as exporting
    from models.dataset import Split
    from models.runs import SPLIT
    from models.served import Graph

    with _told(), TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        weights = exporting.graph_of(run, graph)
        parts = Split.read(run / SPLIT, data)
        path = calibration.calibrate(
            Graph(graph, exporting.MAX_SIDE, second_look=second_look, most_close_ups=close_ups),
            parts,
            run,
            samples,
            seed,
            _say,
            weights,
        )
        _say(f"Calibrated: {path}")


@app.command()
def export(run: Run, weights: Annotated[Path, typer.Argument(help="Folder for model.onnx and card.toml.")]) -> None:
    """Write a calibrated run's weights as an ONNX graph with its card."""
    from models import export as exporting

    with _told():
        _say(f"Exported: {exporting.export(run, weights, _say)}")


@app.command()
def adapt(
    data: Data,
    out: Annotated[Path, typer.Option(help="The new weights folder.")],
    weights: Annotated[Path, typer.Option(help="The weights to start from.", exists=True, file_okay=False)] = WEIGHTS,
    layers: Annotated[str, typer.Option(help="What is trained: normalisation, last or all.")] = "normalisation",
    minutes: Annotated[float, typer.Option(min=0, help="Minutes of training; measuring comes on top.")] = 6.0,
    old: Annotated[
        Path | None,
        typer.Option(help="Data the weights were made for: shows what they forget.", exists=True, file_okay=False),
    ] = None,
    overlaid: Annotated[
        bool, typer.Option(help="The frames carry marks already: take them away before drawing others.")
    ] = False,
    samples: Annotated[int, typer.Option(min=1, help="Synthetic frames that measure each side.")] = 40,
    threads: Threads = None,
) -> None:
    """Fine-tune released weights on a site's own frames, and say what they gained and forgot."""
    import torch

    from models import adapt as adaptation

    if threads:
        torch.set_num_threads(threads)
    with _told():
        plan = adaptation.Plan(layers, minutes, samples, overlaid)
        _say(f"Adapted: {adaptation.adapt(weights, data, out, plan, old, _say)}")


@app.command()
def quantise(
    weights: Annotated[
        Path, typer.Argument(help="Folder with model.onnx and card.toml.", exists=True, file_okay=False)
    ],
    data: Data,
    frames: Annotated[int, typer.Option(min=1, help="Synthetic screens the scales are taken from.")] = 24,
) -> None:
    """Write model.int8.onnx beside the model, unless it changes a verdict on real annotated frames."""
    from models import quantise as quantisation

    with _told():
        _say(f"Quantised: {quantisation.quantise(weights, data, frames, _say)}")


@app.command()
def compare(
    weights: Annotated[
        Path, typer.Argument(help="Folder with model.onnx and card.toml.", exists=True, file_okay=False)
    ],
    run: Annotated[Path, typer.Option(help="The run of the weights: its split.", exists=True, file_okay=False)],
    data: Data,
    minutes: Annotated[float, typer.Option(min=0.01, help="How many minutes the costumed U-Net is trained.")] = 15.0,
    samples: Annotated[int, typer.Option(min=1, help="Frames of unseen styles for each kind.")] = 40,
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("runs") / "comparison",
) -> None:
    """Measure weights beside a costumed U-Net trained Noise2Noise in the same run."""
    from models import compare as comparison
    from models.origin import own_split
    from models.runs import trained
    from models.served import Weights

    with _told():
        served, parts = Weights(weights), own_split(weights, run, data)
        recipe = trained(run)[1]
        table = comparison.compare(served, parts.training, parts.validation, recipe, minutes=minutes, count=samples)
        _say(table)
        _say(f"Table: {comparison.write(table, out)}")


@app.command()
def evaluate(
    weights: Annotated[
        Path, typer.Argument(help="Folder with model.onnx and card.toml.", exists=True, file_okay=False)
    ],
    data: Data,
    run: Annotated[
        Path | None,
        typer.Option(
            help="The run of the weights: adds its validation frames, clean and with unseen styles.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and pictures.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Synthetic frames of unseen styles.")] = 200,
    record: Annotated[bool, typer.Option(help="Write the figures into the card.")] = False,
) -> None:
    """Measure weights on real annotated frames, clean frames and unseen styles."""
    from models import evaluate as evaluation
    from models.origin import own_split
    from models.served import Weights

    with _told():
        served = Weights(weights)
        report = evaluation.Report(served.card["name"])
        folder = out or Path("runs") / f"evaluation-{served.card['name']}"
        labels = evaluation.labels_of(data)
        if labels is None and run is None:
            raise DataError(f"{data} holds no labels.csv to measure on.", cure="Label frames there, or give `--run`.")
        unseen = own_split(weights, run, data).validation if run is not None else None
        if labels is not None:
            evaluation.real_frames(served, labels, report, folder / "pictures")
        if unseen is not None:
            evaluation.clean_frames(served, unseen, report)
            evaluation.synthetic_frames(served, unseen, samples, 23, report)
        report.write(folder)
        if record:
            evaluation.record(report, weights)
        _say(report.markdown())
        _say(f"Report: {folder}")


@app.command()
def tables(
    data: Data,
    out: Annotated[Path, typer.Option(help="Keeps drawn crops and finished cells; a second run goes on from there.")],
    scale: Annotated[str, typer.Option(help="How much is run: smoke, mini, pilot, cpu or gpu.")] = "smoke",
    document: Annotated[Path | None, typer.Option(help="The page to write (default OUT/tables-SCALE.md).")] = None,
    time_budget: Annotated[
        float | None, typer.Option(min=0, help="Minutes; cells that would take longer wait.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Do the paper's tables and figures again and write them to a page."""
    import torch

    from models.reproduction import tables as reproduction

    if threads:
        torch.set_num_threads(threads)
    with _told():
        page = document or out / f"tables-{scale}.md"
        _say(f"Written: {reproduction.tables(scale, data, out, page, console, time_budget)}")


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


class _told:
    """Shows an expected error as its message and a status of 1, not as a traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            error = of_the_system(error)
        if isinstance(error, SonomarkError):
            # As it stands: a folder's name may hold what looks like markup.
            console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


@contextmanager
def without_the_extra() -> Iterator[None]:
    """Says what to install where the service alone is installed, in place of a traceback."""
    try:
        yield
    except ModuleNotFoundError as lacking:
        missing = (lacking.name or "").partition(".")[0]
        if missing in ("models", "service"):
            raise
        _say(f"{missing} is not installed. Install what trains: docs/training.md says how.")
        raise SystemExit(1) from lacking
