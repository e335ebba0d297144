"""What a data scientist may get wrong: a clear error each, and nothing half-written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import evaluate, export, recipe
from models import train as training
from models.dataset import Split, clean_frames, split
from models.errors import DataError, LeakySplit, TrainingError
from models.served import Weights
from models.train import CHECKPOINT, SPLIT, train
from tests.models.tiny_weights import write_speckle, write_tiny_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speckle(tmp_path_factory.mktemp("frames"), 6)


@pytest.fixture
def tiny() -> recipe.Recipe:
    smoke = recipe.load("smoke")
    return replace(smoke, steps=4, batch=2, pool=16)


def test_an_interrupted_run_leaves_a_whole_checkpoint_and_goes_on(
    data: Path, tiny: recipe.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = training.follow
    monkeypatch.setattr(training, "_CHECKPOINT_EVERY_S", -1.0)

    def interrupted(*arguments) -> None:
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        follow(*arguments)

    monkeypatch.setattr(training, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny, data, tmp_path / "run")
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["state"]["step"] == 2
    assert not list((tmp_path / "run").glob("*.part"))
    monkeypatch.setattr(training, "follow", follow)
    train(tiny, data, tmp_path / "run", resume=True)
    assert torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)["state"]["step"] == 4


def test_a_damaged_checkpoint_is_named(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"PK cut off")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt is damaged"):
        export.export(tmp_path, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_a_run_that_was_not_calibrated_is_not_exported(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    run = train(replace(tiny, steps=1), data, tmp_path / "run")
    with pytest.raises(TrainingError, match="not calibrated"):
        export.export(run, tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_manifest_that_is_missing_broken_or_shares_a_patient_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Split.read(tmp_path / SPLIT, data)
    (tmp_path / SPLIT).write_text('{"training": []')
    with pytest.raises(DataError, match="cannot be read"):
        Split.read(tmp_path / SPLIT, data)
    parts = split(clean_frames(data), (), 0.3, 1)
    parts.write(tmp_path / SPLIT, data)
    sides = json.loads((tmp_path / SPLIT).read_text())
    sides["validation"][0]["group"] = sides["training"][0]["group"]
    (tmp_path / SPLIT).write_text(json.dumps(sides))
    with pytest.raises(LeakySplit, match="share 1 groups"):
        Split.read(tmp_path / SPLIT, data)


def test_a_listing_without_its_columns_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "frames.csv").write_text("path,ward\na.png,here\n")
    with pytest.raises(DataError, match="no column 'file'"):
        clean_frames(tmp_path)
    (tmp_path / "labels.csv").write_text("file,source\na.png,here\n")
    weights = Weights(write_tiny_weights(tmp_path / "weights"))
    with pytest.raises(DataError, match="no column of any kind"):
        evaluate.real_frames(weights, tmp_path / "labels.csv", evaluate.Report("tiny"))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no weights"):
        Weights(tmp_path)
    weights = write_tiny_weights(tmp_path / "weights")
    (weights / "card.toml").write_text("name = ")
    with pytest.raises(DataError, match="holds no weights"):
        Weights(weights)


@pytest.mark.parametrize("seed", range(6))
def test_a_few_patients_are_enough_for_a_split(data: Path, seed: int) -> None:
    frames = clean_frames(data)[:3]
    parts = split(frames, (), 0.25, seed)
    assert parts.training and parts.validation
    with pytest.raises(DataError, match="no frame for"):
        split(frames[:1], (), 0.25, seed)
