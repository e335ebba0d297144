"""Training crops in shared memory: a worker process draws synthetic screens and keeps replacing the oldest crops.

Drawing a screen costs far more than a training step takes from it, so each screen gives several crops and each crop
is used a few times, with other brightness and colour, before it is replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context, parent_process
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from models.corruption import Sample, corrupt
from models.dataset import CleanFrame, read_frame
from models.errors import TrainingError
from service.analyse.padding import padded

Frame = npt.NDArray[np.uint8]

_BYTES_PER_PIXEL = 7  # frame RGB, second RGB, kind
_WAIT_S = 300.0
_FIRST_CROPS = 256
_TRAINER_CORES = 2
_BACKGROUNDS = 2 * 2**30
_SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps it


@dataclass(frozen=True)
class CropSettings:
    """How screens become crops: side in pixels, crops from one screen, share centred on a mark, range of the resize."""

    side: int = 256
    per_screen: int = 6
    centred: float = 0.7
    smallest_scale: float = 0.5
    largest_scale: float = 2.2
    blurred: float = 0.3
    """Share of crops blurred by up to ``blur`` pixels: archives enlarge, frame grabbers soften."""
    blur: float = 2.0
    uses: float = 1.2
    """How often a crop is used on average: fresh ones teach more, but drawing them takes time from training."""


class CropPool:
    """``capacity`` crops in shared memory; `batch` draws from those filled so far. Of 0 ``workers`` there are as many
    as cores to spare."""

    def __init__(
        self,
        frames: Sequence[CleanFrame],
        settings: CropSettings,
        capacity: int,
        workers: int,
        seed: int,
        niceness: int = 5,
    ) -> None:
        self.settings, self.capacity = settings, capacity
        workers = workers or cores_to_spare()
        context = get_context("spawn")
        self.size = capacity * _BYTES_PER_PIXEL * settings.side**2
        refuse_too_little(self.size)
        self._memory = SharedMemory(create=True, size=self.size)
        try:
            reserve(self._memory)
        except BaseException:
            self._memory.close()
            self._memory.unlink()
            raise
        self._views = _views(self._memory, capacity, settings.side)
        self._written = [context.Value("q", 0) for _ in range(workers)]
        self._wanted = context.Value("d", _FIRST_CROPS * 4.0)
        bounds = np.linspace(0, capacity, workers + 1).astype(int)
        self._slots = list(pairwise(bounds))
        self._workers = [
            context.Process(
                target=_keep_drawing,
                args=(
                    self._memory.name,
                    capacity,
                    list(frames),
                    settings,
                    slots,
                    seed * 1000 + number,
                    written,
                    self._wanted,
                    niceness,
                ),
                daemon=True,
            )
            for number, (slots, written) in enumerate(zip(self._slots, self._written, strict=True))
        ]
        for worker in self._workers:
            worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.terminate()
            worker.join()
        self._views = ()
        self._memory.close()
        self._memory.unlink()

    @property
    def drawn(self) -> int:
        """Crops drawn so far, those already replaced included."""
        return sum(self.written)

    @property
    def written(self) -> list[int]:
        """Crops that each worker has drawn so far."""
        return [written.value for written in self._written]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of noisy, second noisy and kinds, for all slots."""
        return [view.shape for view in self._views]

    def wait(self, crops: int = _FIRST_CROPS) -> None:
        """Wait for the first crops. Raises `TrainingError` when a worker has died, or they take too long."""
        deadline, wanted = time.monotonic() + _WAIT_S, min(crops, self.capacity)
        while (drawn := self.drawn) < wanted:
            self.refuse_dead_workers()
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"After {_WAIT_S / 60:g} minutes {drawn} of the first {wanted} crops are drawn.",
                    cure="See what else the machine does, and whether reading the frames takes long.",
                )
            time.sleep(0.2)

    def refuse_dead_workers(self) -> None:
        dead = [worker for worker in self._workers if worker.exitcode is not None]
        if dead:
            raise TrainingError(
                f"A drawing worker ended with status {dead[0].exitcode}; its own message stands above.",
                cure="Resume the run when the cause is gone.",
            )

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Frame, Frame, Frame]:
        """``size`` crops: noisy and second noisy uint8 (n, side, side, 3), kind per pixel uint8 (n, side, side)."""
        return self.take(self.chosen(rng, size))

    def chosen(self, rng: np.random.Generator, size: int) -> npt.NDArray[np.int64]:
        """``size`` slots that are filled, at random; the workers hear that as many crops were used."""
        filled = np.concatenate(
            [
                np.arange(start, start + min(written, stop - start))
                for (start, stop), written in zip(self._slots, self.written, strict=True)
            ]
        )
        self._wanted.value += size / self.settings.uses / len(self._workers)
        return rng.choice(filled, size, replace=len(filled) < size)

    def spans_since(self, then: Sequence[int], now: Sequence[int]) -> Iterator[slice]:
        """The slots filled anew between two readings of `written`, each worker's in one piece or two."""
        for (start, stop), before, after in zip(self._slots, then, now, strict=True):
            room = stop - start
            if after - before >= room:
                yield slice(start, stop)
            elif after > before:
                first, last = before % room, (after - 1) % room + 1
                yield from (
                    [slice(start + first, start + last)]
                    if first < last
                    else [slice(start + first, stop), slice(start, start + last)]
                )

    def take(self, slots: npt.NDArray[np.int64] | slice) -> tuple[Frame, Frame, Frame]:
        """The crops in these slots, as `batch` gives them; those of a slice are not copied."""
        noisy, second, kinds = self._views
        return noisy[slots], second[slots], kinds[slots]


def cores_to_spare() -> int:
    """Cores that may draw, at least one: all but the trainer's own, shared with the other ranks of this machine."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun says how many there are
    return max(1, len(os.sched_getaffinity(0)) // ranks - _TRAINER_CORES)


def refuse_too_little(size: int, place: Path = _SHARED) -> None:
    """Raise `TrainingError` where shared memory cannot hold ``size`` bytes: containers have 64 MB of it, and a process
    that writes beyond dies without a word."""
    there = shutil.disk_usage(place).free if place.is_dir() else size
    if there < size:
        raise _too_little(size, there, place)


def reserve(memory: SharedMemory) -> None:
    """Take all of the memory now: what is free may be promised to other ranks and runs that have not written yet.

    Raises `TrainingError` where there is too little.
    """
    file = _SHARED / memory.name
    if not file.exists():
        return  # a system that keeps it elsewhere
    handle = os.open(file, os.O_RDWR)
    try:
        os.posix_fallocate(handle, 0, memory.size)
    except OSError as full:
        if full.errno not in (errno.ENOSPC, errno.ENOMEM):
            raise
        raise _too_little(memory.size, shutil.disk_usage(_SHARED).free, _SHARED) from full
    finally:
        os.close(handle)


def _too_little(size: int, there: int, place: Path) -> TrainingError:
    return TrainingError(
        f"The crops take {size / 1e6:.0f} MB of shared memory, and {place} has {there / 1e6:.0f} MB.",
        cure="Give the container more (`--shm-size`), or lower `pool` in the recipe.",
    )


def _views(memory: SharedMemory, capacity: int, side: int) -> tuple[Frame, ...]:
    colour = capacity * side * side * 3
    shapes = ((0, (capacity, side, side, 3)), (colour, (capacity, side, side, 3)), (2 * colour, (capacity, side, side)))
    return tuple(np.ndarray(shape, np.uint8, memory.buf, offset) for offset, shape in shapes)


def _keep_drawing(
    name: str,
    capacity: int,
    frames: list[CleanFrame],
    settings: CropSettings,
    slots: tuple[int, int],
    seed: int,
    written: Synchronized[int],
    wanted: Synchronized[float],
    niceness: int,
) -> None:
    """The worker: draws no more than is wanted until the trainer terminates it, or is gone itself."""
    os.nice(niceness)
    memory = SharedMemory(name=name)
    noisy, second, kinds = _views(memory, capacity, settings.side)
    rng = np.random.default_rng(seed)
    backgrounds = Backgrounds(frames)
    start, stop = slots
    trainer = parent_process()
    assert trainer is not None
    while trainer.is_alive():
        if written.value >= wanted.value:
            time.sleep(0.1)
            continue
        for crop in crops(corrupt(backgrounds.draw(rng), rng), settings, rng):
            slot = start + written.value % (stop - start)
            noisy[slot], second[slot], kinds[slot] = crop
            written.value += 1


class Backgrounds:
    """Clean frames, every data set drawn as often as the square root of its size: large ones must not drown small ones.

    A frame is read when it is drawn first and kept while there is ``room`` in bytes, of which each worker has its own;
    the others are read each time, which takes a small part of what drawing on them does.
    """

    def __init__(self, frames: Sequence[CleanFrame], room: int = _BACKGROUNDS) -> None:
        self._paths, self._room = [frame.path for frame in frames], room
        self._kept: dict[int, Frame] = {}
        sources = [frame.source for frame in frames]
        weight = np.array([1 / sources.count(source) ** 0.5 for source in sources])
        self._share = weight / weight.sum()

    def draw(self, rng: np.random.Generator) -> Frame:
        """A frame, mirrored half of the time: before marks are drawn, because mirrored letters are no letters."""
        frame = self._frame(int(rng.choice(len(self._paths), p=self._share)))
        return np.ascontiguousarray(frame[:, ::-1]) if rng.random() < 0.5 else frame

    def _frame(self, number: int) -> Frame:
        if number in self._kept:
            return self._kept[number]
        frame = read_frame(self._paths[number])
        if frame.nbytes <= self._room:
            self._kept[number], self._room = frame, self._room - frame.nbytes
        return frame


def crops(sample: Sample, settings: CropSettings, rng: np.random.Generator) -> list[tuple[Frame, Frame, Frame]]:
    """Crops of one screen at random scales, most of them on a mark, the others anywhere."""
    # To look for a kind's pixels in a whole screen takes longer than to cut a crop.
    present = np.flatnonzero(np.bincount(sample.labels.ravel(), minlength=2)[1:]) + 1
    marked = [np.flatnonzero(sample.labels == kind) for kind in present]
    return [_crop(sample, marked, settings, rng) for _ in range(settings.per_screen)]


def _crop(
    sample: Sample, marked: Sequence[npt.NDArray[np.int64]], settings: CropSettings, rng: np.random.Generator
) -> tuple[Frame, Frame, Frame]:
    height, width = sample.labels.shape
    scale = float(np.exp(rng.uniform(np.log(settings.smallest_scale), np.log(settings.largest_scale))))
    if rng.random() < 0.4:
        scale = 1.0
    # At most the screen's shorter side: what lies beyond would be padding, which no archive holds.
    span = min(round(settings.side / scale), max(32, min(height, width)))
    x, y = _corner(sample.labels.shape, marked, span, settings.centred, rng)
    window = np.s_[y : y + span, x : x + span]
    parts = [sample.noisy[window], sample.noisy_again[window], sample.labels[window]]
    down, right = span - parts[2].shape[0], span - parts[2].shape[1]
    if down > 0 or right > 0:
        parts = [padded(part, max(down, 0), max(right, 0)) for part in parts]
    if span == settings.side:
        frames, kinds = parts[:2], parts[2]
    else:
        size = (settings.side, settings.side)
        smooth = cv2.INTER_AREA if span > settings.side else cv2.INTER_LINEAR
        enlarged = (cv2.resize(np.ascontiguousarray(part), size, interpolation=smooth) for part in parts[:2])
        frames = [np.asarray(frame, np.uint8) for frame in enlarged]
        kinds = resized_kinds(parts[2], settings.side, settings.side)
    if rng.random() < settings.blurred:
        sigma = float(rng.uniform(0.4, settings.blur))
        blurred = (cv2.GaussianBlur(np.ascontiguousarray(frame), (0, 0), sigma) for frame in frames)
        frames = [np.asarray(frame, np.uint8) for frame in blurred]
    return frames[0], frames[1], kinds


def _corner(
    shape: tuple[int, ...],
    marked: Sequence[npt.NDArray[np.int64]],
    span: int,
    centred: float,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Left and top of a crop; ``marked`` holds the pixels of each kind in the screen, numbered row by row."""
    height, width = shape
    limit_x, limit_y = max(0, width - span), max(0, height - span)
    if not marked or rng.random() >= centred:
        return int(rng.integers(0, limit_x + 1)), int(rng.integers(0, limit_y + 1))
    # A kind first, then one of its pixels: a long text must not take every crop.
    pixels = marked[int(rng.integers(len(marked)))]
    y, x = divmod(int(pixels[rng.integers(len(pixels))]), width)
    jitter = span // 3
    return (
        int(np.clip(x - span // 2 + rng.integers(-jitter, jitter + 1), 0, limit_x)),
        int(np.clip(y - span // 2 + rng.integers(-jitter, jitter + 1), 0, limit_y)),
    )


def resized_kinds(kinds: Frame, width: int, height: int) -> Frame:
    """A kind map at another size; a pixel takes a kind that covers a third of it, so that thin lines survive."""
    result = np.zeros((height, width), np.uint8)
    strongest = np.full((height, width), 84, np.uint8)
    for kind in np.flatnonzero(np.bincount(kinds.ravel(), minlength=2)[1:]) + 1:
        plane = (kinds == int(kind)).view(np.uint8) * np.uint8(255)
        smooth = cv2.INTER_AREA if width < kinds.shape[1] else cv2.INTER_LINEAR
        share = cv2.resize(plane, (width, height), interpolation=smooth)
        wins = share > strongest
        result[wins], strongest[wins] = kind, share[wins]
    return result
