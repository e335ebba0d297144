"""A run's checkpoint: recipe, network, averaged weights, optimiser and state, in one file."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.errors import TrainingError
from models.recipe import Recipe, from_values
from models.whole import beside

CHECKPOINT = "checkpoint.pt"
PARTS = ("recipe", "network", "average", "optimiser", "state")
A_RUN = "Give the folder of a run that `python -m models train` made."


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Raises OSError when the disk does not take it."""
    whole = BytesIO()  # torch's own writer says of a full disk only that something failed
    torch.save(checkpoint, whole)
    with beside(path) as part:
        part.write_bytes(whole.getbuffer())


def read_checkpoint(path: Path, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """Raises `TrainingError` when there is none, it is damaged, or lacks one of its ``parts``."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as missing:
        raise TrainingError(
            f"{path.parent} holds no checkpoint.", cure="Train first: `python -m models train RECIPE --data FOLDER`."
        ) from missing
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as broken:
        raise TrainingError(
            f"The checkpoint {path} is damaged, or another program's ({type(broken).__name__}).",
            cure="Train again, into a new folder.",
        ) from broken
    if what := _foreign(checkpoint, parts):
        raise TrainingError(f"{path} is no checkpoint of such a run: {what}.", cure=A_RUN)
    return checkpoint


def _foreign(checkpoint: Any, parts: Sequence[str]) -> str | None:
    """What tells a checkpoint from those that are written here."""
    for part in parts:
        if not isinstance(checkpoint, dict) or part not in checkpoint:
            return f"it has no {part!r}"
        if part in ("recipe", "state") and not isinstance(checkpoint[part], dict):
            return f"its {part} is no table"
    lacking = [name for name in ("step", "elapsed_s") if parts is PARTS and name not in checkpoint["state"]]
    return f"its state has no {lacking[0]!r}" if lacking else None


def recipe_of(checkpoint: dict[str, Any]) -> Recipe:
    """The recipe a checkpoint was trained by."""
    return from_values(checkpoint["recipe"])


def total_steps(state: dict[str, Any]) -> int:
    """Steps of this run and of those it started from."""
    return int(state["step"] + state.get("earlier_steps", 0))


def total_seconds(state: dict[str, Any]) -> float:
    return float(state["elapsed_s"] + state.get("earlier_s", 0.0))


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """What tells a network's weights from any others: their SHA-256, whatever file they lie in."""
    whole = sha256()
    for name, weight in sorted(weights.items()):
        whole.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        whole.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()
