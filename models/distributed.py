"""One run in several processes, as `torchrun` starts them: each draws its own crops, gradients are averaged.

Rank 0 alone writes: checkpoints, TensorBoard events, the split's manifest. Without `torchrun` there is one rank and
nothing here does anything.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Self

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

_SEEDS_APART = 100_003


class Ranks:
    """The processes of a run, entered before training and left after it."""

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __enter__(self) -> Self:
        if distributed.is_torchelastic_launched():
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
            if self.device.type == "cuda":
                self.device = torch.device("cuda", distributed.get_node_local_rank())
                torch.cuda.set_device(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1:
            distributed.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    @property
    def seed_offset(self) -> int:
        """What this rank adds to a seed, so that no two draw the same crops."""
        return self.rank * _SEEDS_APART

    def joined(self, network: nn.Module) -> nn.Module:
        """The network with rank 0's weights, whose backward pass averages gradients over all ranks."""
        if self.count == 1:
            return network
        return DistributedDataParallel(network, device_ids=[self.device] if self.device.type == "cuda" else None)

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank; every rank must ask at the same place."""
        if self.count == 1:
            return here
        flag = torch.tensor(float(here), device=self.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag.item())

    def wait(self) -> None:
        """Until all ranks are here."""
        if self.count > 1:
            distributed.barrier()


def end_process() -> None:
    """End a rank's process whose work is done, with status 0; does nothing in a process of its own.

    DistributedDataParallel keeps Gloo's threads alive beyond its group. One that frees a tensor while the interpreter
    is torn down aborts the process (pytorch/pytorch#179291; measured: one exit in 25), and torchrun then reports a run
    that succeeded as failed. So the interpreter is not torn down.
    """
    if distributed.is_torchelastic_launched():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
