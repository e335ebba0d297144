"""Training of one cell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.architectures import build
from models.checkpoint import read_checkpoint, write_checkpoint
from models.machine import bf16_is_fast, placed
from models.reproduction.crops import Crops, Data
from models.reproduction.inputs import Images, to_levels, to_network, to_uint8
from models.reproduction.losses import RestorationLoss
from models.reproduction.optimisers import OPTIMISERS
from models.reproduction.recipes import BLACK, UNCHANGED, UNTRAINED, Cell
from models.reproduction.scales import Scale

_CHECKPOINT_EVERY_S = 60.0
_POINTS_OF_A_CURVE = 12
_CURVE_CROPS = 16
_LARGEST_GRADIENT = 2.0


@dataclass(frozen=True)
class Point:
    """One point of a convergence curve: mean loss since the last one, grey levels off the clean validation crops."""

    step: int
    loss: float
    error: float


@dataclass(frozen=True)
class Trained:
    """`diverged` is the step whose loss was no number any more; the weights are those from before."""

    network: nn.Module
    curve: tuple[Point, ...]
    diverged: int | None


def network_of(name: str) -> nn.Module:
    """The network a recipe names, with random weights, or one of the stand-ins that learn nothing."""
    if name in UNTRAINED:
        return {UNCHANGED: nn.Identity, BLACK: _Black}[name]()
    shared = name.removesuffix("_unshared")
    return build(shared) if shared == name else build(shared, shared=False)


class _Black(nn.Module):
    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(frame)


def steps_of(cell: Cell, scale: Scale) -> int:
    return 0 if cell.network in UNTRAINED else scale.steps(batch_of(cell, scale))


def batch_of(cell: Cell, scale: Scale) -> int:
    return OPTIMISERS[cell.optimiser].batch or scale.modern_batch


def device_at_hand() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def described(device: torch.device) -> str:
    """The device's name and its precision, for the report."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name}, {'bfloat16' if bf16_is_fast(device) else 'float32'}"


def train(
    cell: Cell,
    scale: Scale,
    seed: int,
    data: Data,
    checkpoint: Path,
    advance: Callable[[int], None] = lambda steps: None,
) -> Trained:
    """Train a cell's network; `advance` hears of every step.

    A checkpoint is written every minute and taken up again by the next call, then removed by the caller.
    """
    torch.manual_seed(seed)
    device = device_at_hand()
    network = placed(network_of(cell.network), device)
    steps = steps_of(cell, scale)
    if not steps:
        return Trained(network.eval(), (), None)
    optimiser, schedule = OPTIMISERS[cell.optimiser].make(network, steps)
    loss_of = RestorationLoss(
        cell.loss, published_scales=cell.defects.loss_scales, whole_frame=cell.defects.whole_frame_loss
    )
    state: dict[str, Any] = {"step": 0, "curve": [], "losses": []}
    if checkpoint.exists():
        state = _restore(checkpoint, network, optimiser, schedule)
        advance(state["step"])
    saved, diverged = time.monotonic(), None
    while state["step"] < steps:
        rows = _rows(len(data.training), batch_of(cell, scale), seed, state["step"])
        noisy, second, target_of_n2c, mask = data.training.take(rows)
        target = to_network(second if cell.scheme == "N2N" else target_of_n2c, cell.input).to(device)
        marked = torch.from_numpy(np.ascontiguousarray(mask))[:, None].to(device)
        restoration = restored(network, to_network(noisy, cell.input), device)
        loss = loss_of(restoration, target, marked)
        if not torch.isfinite(loss):
            diverged = state["step"]
            break
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        optimiser.step()
        schedule.step()
        state["step"] += 1
        state["losses"].append(loss.item())
        if state["step"] % max(1, steps // _POINTS_OF_A_CURVE) == 0:
            error = error_in_levels(network, cell, data.validation, device)
            state["curve"].append((state["step"], float(np.mean(state["losses"])), error))
            state["losses"] = []
        advance(1)
        if time.monotonic() - saved > _CHECKPOINT_EVERY_S:
            _save(checkpoint, network, optimiser, schedule, state)
            saved = time.monotonic()
    return Trained(network.eval(), tuple(Point(*point) for point in state["curve"]), diverged)


def _rows(crops: int, batch: int, seed: int, step: int) -> np.ndarray:
    """The batch of one step: every crop once an epoch, in an order that only seed and epoch decide."""
    start = step * batch
    places = np.arange(start, start + batch)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(crops) for epoch in set((places // crops).tolist())
    }
    return np.sort([orders[place // crops][place % crops] for place in places.tolist()])


def restored(network: nn.Module, noisy: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The network's answer, in float32; the work is done in bfloat16 where that is fast."""
    noisy = noisy.to(device, memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device)):
        answer: torch.Tensor = network(noisy).float()
        return answer


@torch.no_grad()
def restorations(network: nn.Module, cell: Cell, noisy: Images) -> Images:
    """Restorations of uint8 images (n, H, W, 3) as the cell's pipeline makes them images again."""
    device = device_at_hand()
    network.eval()
    answers = []
    for start in range(0, len(noisy), 8):
        answer = restored(network, to_network(noisy[start : start + 8], cell.input), device)
        levels = to_levels(answer, cell.input, unscaled=cell.defects.unscaled_smn)
        answers.append(to_uint8(levels, wrapping=cell.defects.wrapping_uint8))
    return np.concatenate(answers)


def error_in_levels(network: nn.Module, cell: Cell, crops: Crops, device: torch.device) -> float:
    """Mean distance in grey levels between restoration and clean crop, free of the pipeline's defects in scoring."""
    network.eval()
    with torch.no_grad():
        answer = restored(network, to_network(crops.noisy[:_CURVE_CROPS], cell.input), device)
    network.train()
    levels = to_levels(answer, cell.input, unscaled=False)
    return float(np.abs(np.clip(levels, 0, 255) - crops.clean[:_CURVE_CROPS]).mean())


def _save(path: Path, network: nn.Module, optimiser: Any, schedule: Any, state: dict[str, Any]) -> None:
    parts = {"network": network, "optimiser": optimiser, "schedule": schedule}
    write_checkpoint(path, {**{name: part.state_dict() for name, part in parts.items()}, "state": state})


def _restore(path: Path, network: nn.Module, optimiser: Any, schedule: Any) -> dict[str, Any]:
    saved = read_checkpoint(path, ("network", "optimiser", "schedule", "state"))
    network.load_state_dict(saved["network"])
    optimiser.load_state_dict(saved["optimiser"])
    schedule.load_state_dict(saved["schedule"])
    state: dict[str, Any] = saved["state"]
    return state
