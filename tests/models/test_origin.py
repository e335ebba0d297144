"""Weights are measured on what their own run held out: any other run's split says nothing of what they saw."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from typer.testing import CliRunner

from models import recipe
from models.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from models.cli import app
from models.dataset import Split, clean_frames, split
from models.errors import DataError, TrainingError
from models.export import export
from models.origin import own_split
from models.runs import SPLIT
from models.train import train
from tests.models.tiny_weights import write_speckle, write_tiny_weights

STEPS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speckle(tmp_path_factory.mktemp("frames"), 6)


@pytest.fixture(scope="module")
def tiny() -> recipe.Recipe:
    return replace(recipe.load("smoke"), steps=STEPS, batch=2, pool=16)


@pytest.fixture(scope="module")
def exported(data: Path, tiny: recipe.Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and the weights exported from it."""
    folder = tmp_path_factory.mktemp("exported")
    run = train(tiny, data, folder / "run")
    card = tomllib.loads((write_tiny_weights(folder / "other") / "card.toml").read_text())
    reading = {name: card[name] for name in ("thresholds", "calibration")}
    (run / "calibration.toml").write_text(tomli_w.dumps(reading))
    return run, export(run, folder / "weights")


@pytest.fixture
def copied(exported: tuple[Path, Path], tmp_path: Path) -> Path:
    """The run, to be changed."""
    return shutil.copytree(exported[0], tmp_path / "run")


def refused(weights: Path, run: Path, data: Path, what: str) -> None:
    """By either command, before anything is measured or written."""
    out = run.parent / "report"
    for command in ("evaluate", "compare"):
        asked = [command, str(weights), "--run", str(run), "--data", str(data), "--out", str(out), "--samples", "1"]
        told = CliRunner().invoke(app, asked)
        assert told.exit_code == 1 and what in told.output, told.output
        assert "Give the run" in told.output and not out.exists()


def test_its_own_run_says_what_weights_never_saw(data: Path, exported: tuple[Path, Path], tmp_path: Path) -> None:
    run, weights = exported
    assert own_split(weights, run, data) == Split.read(run / SPLIT, data)
    asked = ["evaluate", str(weights), "--run", str(run), "--data", str(data), "--out", str(tmp_path), "--samples", "1"]
    assert CliRunner().invoke(app, asked).exit_code == 0
    held_out = len(json.loads((run / SPLIT).read_text())["validation"])
    assert json.loads((tmp_path / "report.json").read_text())["clean"]["frames"] == held_out


def test_another_run_is_refused(data: Path, tiny: recipe.Recipe, exported: tuple[Path, Path], tmp_path: Path) -> None:
    other = train(replace(tiny, seed=tiny.seed + 1), data, tmp_path / "run")
    refused(exported[1], other, data, f"{other} holds other weights than {exported[1]}")


def test_a_run_of_another_network_is_refused(
    data: Path, tiny: recipe.Recipe, exported: tuple[Path, Path], tmp_path: Path
) -> None:
    wider = replace(tiny.network, channels=tuple(2 * count for count in tiny.network.channels))
    deeper = replace(tiny.network, dilations=(*tiny.network.dilations, 2))
    for name, network in (("wider", wider), ("deeper", deeper)):
        other = train(replace(tiny, network=network, steps=1), data, tmp_path / name)
        with pytest.raises(TrainingError, match="holds other weights"):
            own_split(exported[1], other, data)


def test_a_run_that_was_trained_further_is_refused(
    data: Path, tiny: recipe.Recipe, exported: tuple[Path, Path], copied: Path
) -> None:
    train(replace(tiny, steps=STEPS + 1), data, copied, resume=True)
    refused(exported[1], copied, data, "or this one was trained since")


def test_a_split_of_other_frames_is_refused(data: Path, exported: tuple[Path, Path], copied: Path) -> None:
    sides = json.loads((copied / SPLIT).read_text())
    sides["validation"].append(sides["training"].pop())
    (copied / SPLIT).write_text(json.dumps(sides))
    refused(exported[1], copied, data, "split.json is of other frames")


def test_a_run_that_only_began_with_the_weights_is_refused(
    data: Path, tiny: recipe.Recipe, exported: tuple[Path, Path], tmp_path: Path
) -> None:
    """It holds the same weights, and draws a split of its own, here with as many frames on each side."""
    frames, (run, weights) = clean_frames(data), exported
    drawn = {seed: split(frames, (), tiny.split.share, seed) for seed in range(40)}
    own = Split.read(run / SPLIT, data)
    alike = (seed for seed, parts in drawn.items() if len(parts.validation) == len(own.validation) and parts != own)
    began = train(replace(tiny, seed=next(alike)), data, tmp_path / "run", start_from=weights, time_budget_min=0)
    refused(weights, began, data, "split.json is of other frames")


def test_a_split_alone_is_no_run(data: Path, exported: tuple[Path, Path], copied: Path) -> None:
    (copied / CHECKPOINT).unlink()
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        own_split(exported[1], copied, data)


def test_rounding_and_a_corrected_licence_make_no_other_run(
    data: Path, exported: tuple[Path, Path], copied: Path, tmp_path: Path
) -> None:
    """Another machine folds the normalisation into the convolutions with other roundings."""
    checkpoint = read_checkpoint(copied / CHECKPOINT)
    for weight in checkpoint["average"].values():
        if weight.is_floating_point():
            weight *= 1 + 2e-7
    write_checkpoint(copied / CHECKPOINT, checkpoint)
    weights = shutil.copytree(exported[1], tmp_path / "weights")
    card = tomllib.loads((weights / "card.toml").read_text())
    card["data"][0]["licence"] = "CC BY 4.0"
    (weights / "card.toml").write_text(tomli_w.dumps(card))
    assert own_split(weights, copied, data).validation
    del card["data"]
    (weights / "card.toml").write_text(tomli_w.dumps(card))
    with pytest.raises(DataError, match="has no 'data'"):
        own_split(weights, copied, data)
