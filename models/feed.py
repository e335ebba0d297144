"""Batches on their way from the pool to the network: the next one is fetched while the network learns from this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.pool import CropPool

Batch = tuple[Tensor, Tensor, Tensor]


class Feed:
    """Batches of ``size`` crops on ``device``: noisy and second noisy uint8 (n, side, side, 3), kind per pixel uint8
    (n, side, side). One is always under way, in a thread of its own; a GPU copies it from page-locked memory."""

    def __init__(self, pool: CropPool, size: int, device: torch.device, rng: np.random.Generator) -> None:
        self._pool, self._size, self._device, self._rng = pool, size, device, rng
        self._thread = ThreadPoolExecutor(1, "feed")
        self._next: Future[Batch] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def batch(self) -> Batch:
        """The batch under way, once it is here; another sets out."""
        taken = self._next or self._thread.submit(self._take)
        noisy, second, kinds = (part.to(self._device, non_blocking=True) for part in taken.result())
        self._next = self._thread.submit(self._take)
        return noisy, second, kinds

    def _take(self) -> Batch:
        noisy, second, kinds = (torch.from_numpy(part) for part in self._pool.batch(self._rng, self._size))
        if self._device.type == "cuda":
            return noisy.pin_memory(), second.pin_memory(), kinds.pin_memory()
        return noisy, second, kinds
