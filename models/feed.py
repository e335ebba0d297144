"""Batches on their way from the pool to the network: the next one is fetched while the network learns from this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Self

import numpy as np
import torch
from torch import Tensor

from models.pool import CropPool

Batch = tuple[Tensor, Tensor, Tensor]

# A mirror takes at most this share of the GPU's free memory; the rest is for the network.
_MIRRORED = 0.5


class Feed:
    """Batches of ``size`` crops on ``device``: noisy and second noisy uint8 (n, side, side, 3), kind per pixel uint8
    (n, side, side). One is always under way, in a thread of its own. A GPU with room for it keeps a mirror of the
    pool."""

    def __init__(self, pool: CropPool, size: int, device: torch.device, rng: np.random.Generator) -> None:
        self._pool, self._size, self._device, self._rng = pool, size, device, rng
        self._mirror = Mirror(pool, device) if fits(pool, device) else None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1, "feed")
        self._next: Future[Batch] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def batch(self) -> Batch:
        """The batch under way, once it is here; another sets out."""
        taken = (self._next or self._thread.submit(self._take)).result()
        if self._stream is not None:
            now = torch.cuda.current_stream(self._device)
            now.wait_stream(self._stream)
            for part in taken:
                part.record_stream(now)
        self._next = self._thread.submit(self._take)
        return taken

    def _take(self) -> Batch:
        # Copies on a stream of their own run beside the network's work.
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            slots = self._pool.chosen(self._rng, self._size)
            if self._mirror is not None:
                return self._mirror.take(slots)
            noisy, second, kinds = (torch.from_numpy(part).to(self._device) for part in self._pool.take(slots))
            return noisy, second, kinds


def fits(pool: CropPool, device: torch.device) -> bool:
    """Whether the whole pool has room in the memory of a GPU; elsewhere it is at hand already."""
    return device.type == "cuda" and pool.size < _MIRRORED * torch.cuda.mem_get_info(device)[0]


class Mirror:
    """The pool's crops in the device's own memory: each is copied there once, not every time that it is used."""

    def __init__(self, pool: CropPool, device: torch.device) -> None:
        self._pool, self._device = pool, device
        self._parts = tuple(torch.empty(shape, dtype=torch.uint8, device=device) for shape in pool.shapes)
        self._copied = [0] * len(pool.written)

    def take(self, slots: np.ndarray) -> Batch:
        """The crops in these slots, of which the pool has had each before now."""
        written = self._pool.written
        for span in self._pool.spans_since(self._copied, written):
            for own, part in zip(self._parts, self._pool.take(span), strict=True):
                own[span].copy_(torch.from_numpy(part), non_blocking=True)
        self._copied = written
        of = torch.from_numpy(slots).to(self._device)
        noisy, second, kinds = (own.index_select(0, of) for own in self._parts)
        return noisy, second, kinds
