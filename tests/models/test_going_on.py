"""Runs that go on, and runs that begin with the weights of another: what cannot be is refused, and nothing is dropped
without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from models import adapt as adaptation
from models import recipe
from models.dataset import clean_frames, split
from models.errors import LeakySplit
from models.served import card_of
from models.train import CHECKPOINT, SPLIT, train
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
