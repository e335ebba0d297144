"""Checkpoints and cards that another program wrote, or an older version: what is missing is named, and what to do."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from models import adapt as adaptation
from models import compare, export, quantise
from models.adapt import Plan, adapt
from models.architectures.unshuffle_unet import UnshuffleUNet
from models.checkpoint import CHECKPOINT, read_checkpoint
from models.dataset import clean_frames
from models.errors import DataError, RecipeError, TrainingError
from models.recipe import NetworkSettings, Recipe
from models.runs import begin_from, build, save
from models.served import Weights
from tests.models.tiny_weights import write_labels, write_speckle, write_tiny_weights

TINY = Recipe("tiny", 1, network=NetworkSettings((8, 8, 8, 8, 8), 1, (1,)))  # that of the tiny weights


@pytest.fixture
def run(tmp_path: Path) -> Path:
    network = build(TINY)
    (tmp_path / "run").mkdir()
    state = {"step": 1, "elapsed_s": 1.0}
    save(tmp_path / "run" / CHECKPOINT, TINY, network, network, torch.optim.AdamW(network.parameters()), state)
    return tmp_path / "run"


def begun_from(earlier: Path) -> dict[str, float]:
    return begin_from(earlier, TINY, build(TINY), build(TINY), torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda of: {"state_dict": of["network"]}, "has no 'recipe'"),
        (lambda of: torch.zeros(3), "has no 'recipe'"),
        (lambda of: {name: each for name, each in of.items() if name != "average"}, "has no 'average'"),
        (lambda of: of | {"state": {"epoch": 3}}, "state has no 'step'"),
        (lambda of: of | {"recipe": "unet"}, "recipe is no table"),
        (lambda of: of | {"recipe": {"name": "tiny", "steps": 1}}, "other weights than those of the network"),
        (lambda of: of | {"average": {"encoder.weight": torch.zeros(3)}}, "other weights than those of the network"),
    ],
)
def test_a_checkpoint_of_another_program_is_told_from_a_runs(
    run: Path, tmp_path: Path, change: Callable[[Any], object], said: str
) -> None:
    torch.save(change(read_checkpoint(run / CHECKPOINT)), run / CHECKPOINT)
    for use in (begun_from, lambda earlier: export.export(earlier, tmp_path / "weights")):
        with pytest.raises(TrainingError, match=said) as refused:
            use(run)
        assert CHECKPOINT in refused.value.what and "python -m models train" in refused.value.cure
    assert not (tmp_path / "weights").exists()


def changed(weights: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    card = tomllib.loads((weights / "card.toml").read_text())
    change(card)
    (weights / "card.toml").write_text(tomli_w.dumps(card))
    return weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda card: card.pop("architecture"), "has no 'architecture'"),
        (lambda card: card.pop("steps"), "has no 'steps'"),
        (lambda card: card.update(architecture="unet"), "architecture lacks channels, dilations, top_blocks"),
        (lambda card: card["architecture"].pop("top_blocks"), "architecture lacks top_blocks"),
        (lambda card: card["architecture"].update(channels="many"), "channels = 'many'"),
        (lambda card: card["architecture"].update({"class": "FCN"}), "network is a FCN"),
    ],
)
def test_a_card_that_says_too_little_to_train_on_is_told(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    weights = changed(write_tiny_weights(tmp_path / "weights"), change)
    with pytest.raises((DataError, RecipeError), match=said) as refused:
        begun_from(weights)
    assert "card" in refused.value.what and refused.value.cure


@pytest.mark.parametrize("lacking", ["architecture", "seed", "recipe", "name", "version"])
def test_adapting_by_such_a_card_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    weights = changed(write_tiny_weights(tmp_path / "weights"), lambda card: card.pop(lacking))
    site = write_speckle(tmp_path / "site", 6)
    monkeypatch.setattr(adaptation, "train", lambda *_, **__: pytest.fail("it was told too late"))
    with pytest.raises(DataError, match=f"has no '{lacking}'") as refused:
        adapt(weights, site, tmp_path / "adapted", Plan(minutes=0.01, samples=1), site, print)
    assert "python -m models export" in refused.value.cure
    assert {path.name for path in tmp_path.iterdir()} == {"weights", "site"}


def test_other_commands_tell_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = write_speckle(tmp_path / "site", 6)
    write_labels(site, ["tissue_0a.png"])
    weights = changed(write_tiny_weights(tmp_path / "weights"), lambda card: card.pop("seed"))
    with pytest.raises(DataError, match="has no 'seed'"):
        quantise.quantise(weights, site, 1, print)
    monkeypatch.setattr(compare, "rival", lambda *_: pytest.fail("it was told after the training"))
    frames = clean_frames(site)
    with pytest.raises(DataError, match="has no 'gflop_608x800'"):
        compare.compare(Weights(weights), frames, frames, TINY, minutes=1, count=1)


def test_a_whole_card_and_checkpoint_are_begun_from(run: Path, tmp_path: Path) -> None:
    assert begun_from(run) == {"earlier_steps": 1, "earlier_s": 1.0}
    assert begun_from(write_tiny_weights(tmp_path / "weights")) == {"earlier_steps": 10, "earlier_s": 6.0}
    assert isinstance(export.trained(run)[0], UnshuffleUNet)
