"""Crops of a screen: where they lie, and that their frames and kinds are of one place."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from models import pool
from models.corruption import Sample
from models.dataset import clean_frames
from models.errors import TrainingError
from models.pool import CropPool, CropSettings, cores_to_spare, crops, reserve
from tests.models.tiny_weights import write_speckle

SIDE = 64
SHARED = Path("/dev/shm")


def screen(*marks: tuple[int, int, int], rows: int = 300, columns: int = 400) -> Sample:
    """A frame whose pixels tell their place, with marks (kind, row, column) of eight pixels' side."""
    frame = np.zeros((rows, columns, 3), np.uint8)
    frame[..., 0] = np.arange(columns) * 255 // columns
    frame[..., 1] = (np.arange(rows) * 255 // rows)[:, None]
    labels = np.zeros((rows, columns), np.uint8)
    for kind, y, x in marks:
        labels[y : y + 8, x : x + 8] = kind
    return Sample(clean=frame, noisy=frame, noisy_again=frame, labels=labels, kinds=())


def settings(**others: float) -> CropSettings:
    chosen = {"centred": 1.0, "smallest_scale": 1.0, "largest_scale": 1.0, "blurred": 0.0} | others
    return CropSettings(side=SIDE, per_screen=60, **chosen)


def test_every_kind_is_in_the_middle_as_often() -> None:
    found = crops(screen((1, 20, 30), (4, 250, 350), (5, 140, 200)), settings(), np.random.default_rng(0))
    shown = [set(np.unique(kinds)) - {0} for _, _, kinds in found]
    assert all(len(kinds) == 1 for kinds in shown), "they lie too far apart for one crop"
    assert all(12 <= sum(kind in kinds for kinds in shown) <= 28 for kind in (1, 4, 5))


def test_frames_and_kinds_are_of_one_place() -> None:
    sample = screen((2, 20, 30), (2, 280, 380))
    for first, second, kinds in crops(sample, settings(centred=0.5), np.random.default_rng(1)):
        assert first.shape == second.shape == (SIDE, SIDE, 3) and kinds.shape == (SIDE, SIDE)
        np.testing.assert_array_equal(first, second)
        y, x = np.nonzero(kinds)
        marked = sample.noisy[sample.labels > 0]
        assert set(map(tuple, first[y, x])) <= set(map(tuple, marked))


def test_an_unmarked_screen_is_cut_anywhere() -> None:
    found = crops(screen(), settings(smallest_scale=0.5, largest_scale=2.0), np.random.default_rng(2))
    assert not any(kinds.any() for _, _, kinds in found)
    assert len({first.tobytes() for first, _, _ in found}) == len(found)


def test_shared_memory_is_taken_before_a_worker_dies_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other ranks and runs the free room says nothing: those have not written yet. `SharedMemory` reserves none."""
    with named_memory(1 << 22) as memory:
        reserve(memory)
        assert (SHARED / memory.name).stat().st_blocks * 512 >= 1 << 22

        def full(*_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(TrainingError, match="MB of shared memory") as refused:
            reserve(memory)
        assert "--shm-size" in refused.value.cure


def test_what_is_refused_leaves_no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = set(SHARED.iterdir())
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TrainingError, match="shared memory"):
        CropPool([], CropSettings(side=SIDE), 4, 1, 0)
    assert not [path for path in set(SHARED.iterdir()) - before if path.name.startswith("psm_")]


@contextmanager
def named_memory(size: int) -> Iterator[SharedMemory]:
    memory = SharedMemory(create=True, size=size)
    try:
        yield memory
    finally:
        memory.close()
        memory.unlink()


@pytest.mark.parametrize(("cores", "ranks", "expected"), [(16, "", 14), (16, "4", 2), (4, "4", 1), (16, "1", 14)])
def test_ranks_of_a_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, ranks: str, expected: int
) -> None:
    """Eight ranks started as many workers each as there are cores."""
    monkeypatch.setattr("models.pool.os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert cores_to_spare() == expected


def test_crops_that_take_too_long_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_WAIT_S", 0.0)
    frames = clean_frames(write_speckle(tmp_path, 2))
    with (
        CropPool(frames, settings(), capacity=8, workers=1, seed=1) as slow,
        pytest.raises(TrainingError, match=r"0 of the first 8 crops are drawn"),
    ):
        slow.wait()
