"""The run that weights were exported from: its split says which frames they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.dataset import Split
from models.errors import TrainingError
from models.export import trained_on
from models.graph import folded
from models.recipe import split_of
from models.released import parameters_in
from models.runs import SPLIT, trained
from models.served import card_of

# What rounding may change in a parameter where another machine folds the normalisation in.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


def own_split(weights: Path, run: Path, data: Path) -> Split:
    """The split of ``run``, from which the folder ``weights`` was exported, of the frames below ``data``.

    Raises `TrainingError` where the run's averaged weights are not those of the graph, or its split is another than
    that of the card; and what `card_of`, `trained` and `Split.read` raise.
    """
    card = card_of(weights)
    network, recipe, _ = trained(run)
    if not _same(folded(network).state_dict(), parameters_in(weights / "model.onnx")):
        raise TrainingError(
            f"{run} holds other weights than {weights}: those are of another run, or this one was trained since.",
            cure="Give the run they were exported from, as it was then, or export this one's and measure those.",
        )
    parts = Split.read(run / SPLIT, data)
    # A run that begins with the weights holds them as well until it trains, but draws a split of its own.
    drawn = recipe.seed, recipe.split, _counts(trained_on(run))
    if drawn != (card["seed"], split_of(card), _counts(card["data"])):
        raise TrainingError(
            f"{run / SPLIT} is of other frames than {weights} were trained with.",
            cure="Give the run that the weights were exported from, with the split it was trained by.",
        )
    return parts


def _same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether these are the same parameters but for rounding."""
    return ours.keys() == theirs.keys() and all(
        weight.shape == theirs[name].shape and torch.allclose(weight, theirs[name], _RELATIVE, _ABSOLUTE)
        for name, weight in ours.items()
    )


def _counts(data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A card's data sets with their numbers of frames; a licence may have been put right in it since."""
    return [{name: entry.get(name) for name in ("source", "training", "validation")} for entry in data]
