"""Runs that go on, and runs that begin with the weights of another: what cannot be is refused, and nothing is dropped
without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import adapt as adaptation
from models import recipe
from models.checkpoint import CHECKPOINT
from models.dataset import clean_frames, split
from models.errors import LeakySplit, RecipeError, TrainingError
from models.runs import SPLIT
from models.served import card_of
from models.train import train
from tests.models.tiny_weights import write_speckle, write_tiny_weights

SMOKE = recipe.load("smoke")
TINY = replace(SMOKE, steps=1, batch=2, pool=16, crops=replace(SMOKE.crops, side=64))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speckle(tmp_path_factory.mktemp("frames"), 8)


@pytest.fixture(scope="module")
def earlier(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(TINY, data, tmp_path_factory.mktemp("runs") / "earlier")


def test_what_the_earlier_run_trained_on_is_never_held_out(data: Path, earlier: Path, tmp_path: Path) -> None:
    """Thresholds and figures would come from frames that the weights know."""
    trained = {frame["path"] for frame in json.loads((earlier / SPLIT).read_text())["training"]}
    others = (replace(TINY, seed=seed) for seed in range(99))
    other = next(each for each in others if trained & held_out(each, data))
    with pytest.raises(LeakySplit, match=r"earlier trained on .* that are held out now") as refused:
        train(other, data, tmp_path / "next", start_from=earlier)
    assert "seed" in refused.value.cure and not (tmp_path / "next").exists()
    train(replace(TINY, batch=3), data, tmp_path / "same", start_from=earlier)


def held_out(by: recipe.Recipe, data: Path) -> set[str]:
    parts = split(clean_frames(data), by.split.held_out_sources, by.split.share, by.seed)
    return {frame.named_from(data) for frame in parts.validation}


def test_a_patient_of_the_earlier_run_is_known_by_its_group(data: Path, earlier: Path, tmp_path: Path) -> None:
    sides = json.loads((earlier / SPLIT).read_text())
    for frame in sides["training"]:
        frame["path"] = f"another/export/{frame['path']}"
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / CHECKPOINT).write_bytes((earlier / CHECKPOINT).read_bytes())
    (tmp_path / "moved" / SPLIT).write_text(json.dumps(sides))
    known = {frame["group"] for frame in sides["training"]}
    by_seed = ((seed, split(clean_frames(data), (), TINY.split.share, seed)) for seed in range(99))
    seed = next(number for number, parts in by_seed if known & {frame.group for frame in parts.validation})
    with pytest.raises(LeakySplit, match="held out now"):
        train(replace(TINY, seed=seed), data, tmp_path / "next", start_from=tmp_path / "moved")


def test_what_was_made_for_whom_outlives_adaptations(data: Path, tmp_path: Path, monkeypatch) -> None:
    """Forgetting is measured on frames that the first weights held out; the card's own split is the site's."""
    quick = replace(recipe.load("adapt"), crops=TINY.crops, pool=16, batch=2, seed=5)
    load = recipe.load
    monkeypatch.setattr(adaptation.recipe, "load", lambda name: quick if name == "adapt" else load(name))
    weights = write_tiny_weights(tmp_path / "weights")
    plan = adaptation.Plan(minutes=0.0, samples=1)
    once = adaptation.adapt(weights, data, tmp_path / "once", plan, None, lambda _: None)
    twice = adaptation.adapt(once, data, tmp_path / "twice", plan, None, lambda _: None)
    first, last = (card_of(folder) for folder in (weights, twice))
    assert last["seed"] != first["seed"]
    assert adaptation._home(data, last).frames == adaptation._home(data, first).frames


def test_other_layers_are_refused_when_a_run_goes_on(data: Path, earlier: Path) -> None:
    last = replace(TINY, steps=2, optimiser=replace(TINY.optimiser, layers="last"))
    before = (earlier / CHECKPOINT).read_bytes()
    with pytest.raises(RecipeError, match="trained the layers 'all', and the recipe smoke says 'last'") as refused:
        train(last, data, earlier, resume=True)
    assert "--start-from" in refused.value.cure and (earlier / CHECKPOINT).read_bytes() == before


def test_a_changed_weight_decay_counts_when_a_run_goes_on(data: Path, tmp_path: Path) -> None:
    """The checkpoint said that it was so, and it was not."""
    run = train(TINY, data, tmp_path / "run")
    train(replace(TINY, steps=2, optimiser=replace(TINY.optimiser, weight_decay=0.07)), data, run, resume=True)
    groups = torch.load(run / CHECKPOINT, weights_only=True)["optimiser"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.07, 0.0]


def test_a_run_that_goes_on_cannot_begin_elsewhere(data: Path, earlier: Path, tmp_path: Path) -> None:
    run = train(TINY, data, tmp_path / "run", start_from=earlier)
    with pytest.raises(TrainingError, match=r"run began with .*earlier, not with .*else") as refused:
        train(replace(TINY, steps=2), data, run, resume=True, start_from=tmp_path / "else")
    assert "another folder" in refused.value.cure
    train(replace(TINY, steps=2), data, run, resume=True, start_from=earlier)


def test_when_nothing_is_left_to_train_it_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = train(TINY, data, tmp_path / "run")
    assert "Nothing is left" not in capsys.readouterr().err
    before = (run / CHECKPOINT).read_bytes()
    train(TINY, data, run, resume=True)
    assert f"Nothing is left to train in {run}" in capsys.readouterr().err
    assert (run / CHECKPOINT).read_bytes() == before
