"""The feed gives what the pool gives, in its order, and what goes wrong under way is said."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.dataset import CleanFrame, read_frame
from models.errors import TrainingError
from models.feed import Feed, Mirror
from models.loss import membership
from models.pool import Backgrounds, CropPool, CropSettings
from models.variation import varied

CPU = torch.device("cpu")


class Pool:
    """Crops of which each is told from the others."""

    def chosen(self, rng: np.random.Generator, size: int) -> np.ndarray:
        return rng.integers(0, 99, size)

    def take(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        noisy = np.stack([np.full((8, 8, 3), slot, np.uint8) for slot in slots])
        return noisy, noisy + 100, noisy[..., 0] % 6


def test_batches_are_those_of_the_pool_in_order() -> None:
    rng = np.random.default_rng(7)
    wanted = [Pool().take(Pool().chosen(rng, 4)) for _ in range(5)]
    with Feed(Pool(), 4, CPU, np.random.default_rng(7)) as feed:  # type: ignore[arg-type]
        for expected in wanted:
            for part, want in zip(feed.batch(), expected, strict=True):
                assert np.array_equal(part.numpy(), want)


def test_what_fails_under_way_is_raised_where_the_batch_is_asked_for() -> None:
    class Dead(Pool):
        def take(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            raise TrainingError("A drawing worker ended.", cure="Resume.")

    with Feed(Dead(), 4, CPU, np.random.default_rng(0)) as feed, pytest.raises(TrainingError, match="drawing worker"):  # type: ignore[arg-type]
        feed.batch()


def test_varied_crops_keep_what_is_grey_grey_and_what_is_drawn_where_it_is() -> None:
    rng = np.random.default_rng(0)
    grey = torch.randint(0, 256, (6, 16, 16, 1), dtype=torch.uint8).expand(-1, -1, -1, 3)
    kinds = torch.randint(0, 6, (6, 16, 16), dtype=torch.uint8)
    for _ in range(20):
        noisy, second, labels = varied(grey, grey, kinds, rng)
        assert noisy.shape == second.shape == (6, 3, 16, 16)
        assert float(noisy.min()) >= 0 and float(noisy.max()) <= 1
        assert float((second - second.mean(dim=1, keepdim=True)).abs().max()) < 1e-5
        assert torch.equal(labels, kinds.long())


def test_sums_by_membership_are_those_of_each_kinds_pixels() -> None:
    values, kinds = torch.rand(2, 9, 7), torch.randint(0, 4, (2, 9, 7))
    expected = torch.stack([values[kinds == kind].sum() for kind in range(5)])
    assert torch.allclose(membership(kinds, 5) @ values.flatten(), expected)


def test_a_mirror_holds_what_the_pool_holds_when_crops_have_been_replaced(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), np.random.default_rng(0).integers(0, 200, (96, 96, 3), np.uint8))
    frames = [CleanFrame(tmp_path / "frame.png", "made", "made:0")]
    rng = np.random.default_rng(0)
    with CropPool(frames, CropSettings(side=32, uses=0.5), 24, 2, 0) as pool:
        pool.wait(24)
        mirror = Mirror(pool, CPU)
        drawn = pool.drawn
        mirror.take(pool.chosen(rng, 400))
        while pool.drawn < drawn + 60:  # every slot has been filled anew
            time.sleep(0.05)
        slots = pool.chosen(rng, 1)
        while True:  # until no worker has drawn meanwhile
            before = pool.written
            held, there = mirror.take(slots), pool.take(slots)
            if pool.written == before:
                break
        assert all(np.array_equal(own.numpy(), part) for own, part in zip(held, there, strict=True))


def test_frames_that_have_no_room_are_read_when_they_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ward's archive is larger than the memory of a worker."""
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((40, 60, 3), 50 * number, np.uint8))
    frames = [CleanFrame(tmp_path / f"{number}.png", "made", f"made:{number}") for number in range(4)]
    read: list[Path] = []

    def noted(path: Path) -> np.ndarray:
        read.append(path)
        return read_frame(path)

    monkeypatch.setattr("models.pool.read_frame", noted)
    drawn = {}
    for room in (10**9, 2 * 40 * 60 * 3, 0):
        read.clear()
        rng, backgrounds = np.random.default_rng(3), Backgrounds(frames, room)
        assert not read, "nothing is read before it is drawn"
        drawn[room] = [int(backgrounds.draw(rng).mean()) for _ in range(40)]
        assert len(read) == len(set(read)) == 4 if room == 10**9 else len(read) > 4
        assert len(read) < 40 or room == 0
    assert len({tuple(frames_) for frames_ in drawn.values()}) == 1, "what is drawn does not depend on it"


def test_what_was_filled_since_a_reading_is_told_once(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), np.random.default_rng(0).integers(0, 200, (96, 96, 3), np.uint8))
    frames = [CleanFrame(tmp_path / "frame.png", "made", "made:0")]
    with CropPool(frames, CropSettings(side=32), 10, 2, 0) as pool:
        assert list(pool.spans_since([0, 0], [3, 0])) == [slice(0, 3)]
        assert list(pool.spans_since([3, 0], [6, 2])) == [slice(3, 5), slice(0, 1), slice(5, 7)]
        assert list(pool.spans_since([3, 5], [5, 10])) == [slice(3, 5), slice(5, 10)]
        assert list(pool.spans_since([0, 1], [99, 99])) == [slice(0, 5), slice(5, 10)]
        assert list(pool.spans_since([4, 4], [4, 4])) == []


def test_without_a_number_there_are_as_many_workers_as_cores_to_spare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / "frame.png"), np.random.default_rng(0).integers(0, 200, (96, 96, 3), np.uint8))
    frames = [CleanFrame(tmp_path / "frame.png", "made", "made:0")]
    for cores, expected in ((1, 1), (2, 1), (4, 2)):
        monkeypatch.setattr("models.pool.os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        with CropPool(frames, CropSettings(side=32), 8, 0, 0) as pool:
            pool.wait(2)
            assert len(pool.batch(np.random.default_rng(0), 4)[0]) == 4
            assert len(pool._workers) == expected
