"""The run that weights were exported from: its split says which frames they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.dataset import Split
from models.errors import TrainingError
from models.export import trained_on
from models.graph import folded
from models.released import parameters_in
from models.runs import SPLIT, trained
from models.served import card_of

# What rounding may change in a parameter where another machine folds the normalisation in.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-6


def own_split(weights: Path, run: Path, data: Path) -> Split:
    """The split of ``run``, from which the folder ``weights`` was exported, of the frames below ``data``.

    Raises `TrainingError` where the run's averaged weights are not those of the graph, or its split is of other frames
    than the card counts; and what `card_of`, `trained` and `Split.read` raise.
    """
    card = card_of(weights)
    if not _holds(run, weights / "model.onnx"):
        raise TrainingError(
            f"{run} holds other weights than {weights}: those are of another run, or this one was trained since.",
            cure="Give the run they were exported from, as it was then, or export this one's and measure those.",
        )
    parts = Split.read(run / SPLIT, data)
    if _counts(trained_on(run)) != _counts(card["data"]):
        raise TrainingError(
            f"{run / SPLIT} is of other frames than those that the card of {weights} counts.",
            cure="Give the run that the weights were exported from, with the split it was trained by.",
        )
    return parts


def _holds(run: Path, graph: Path) -> bool:
    """Whether the graph computes with the run's averaged weights."""
    ours, theirs = folded(trained(run)[0]).state_dict(), parameters_in(graph)
    return ours.keys() == theirs.keys() and all(
        weight.shape == theirs[name].shape and torch.allclose(weight, theirs[name], _RELATIVE, _ABSOLUTE)
        for name, weight in ours.items()
    )


def _counts(data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A card's data sets with their numbers of frames; a licence may have been put right in it since."""
    return [{name: entry.get(name) for name in ("source", "training", "validation")} for entry in data]
