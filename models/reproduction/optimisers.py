"""The paper's optimiser, and one that converges in a small budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

Pair = tuple[Optimizer, LRScheduler]


@dataclass(frozen=True)
class Arm:
    """How an arm optimises; `batch` is its batch size where the arm fixes one."""

    make: Callable[[nn.Module, int], Pair]
    batch: int | None


def _published(network: nn.Module, steps: int) -> Pair:
    optimiser = RMSprop(network.parameters(), lr=1e-5, momentum=0.9, weight_decay=1e-8)
    return optimiser, ConstantLR(optimiser, factor=1.0, total_iters=0)


def _modern(network: nn.Module, steps: int) -> Pair:
    optimiser = AdamW(network.parameters(), lr=2e-3)
    return optimiser, OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps + 1, pct_start=0.1)


OPTIMISERS = {"RMSprop": Arm(_published, batch=4), "AdamW": Arm(_modern, batch=None)}
