"""The comparison is fair: one kind a sample, other marks left out of the score, a perfect answer scores best."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.architectures.costumed_unet import CostumedUNet
from models.compare import METRICS, Marked, one_kind, restored, samples, scores
from models.corruption import KINDS
from models.dataset import CleanFrame


def tissue(seed: int, height: int = 160, width: int = 224) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    grey = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 160, cv2.NORM_MINMAX).astype(np.uint8)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


@pytest.mark.parametrize("kind", range(1, 1 + len(KINDS)))
def test_a_sample_scores_where_its_own_kind_may_be(kind: int) -> None:
    rng = np.random.default_rng(kind)
    drawn = [one_kind(tissue(seed), kind, rng, held_out=True) for seed in range(6)]
    assert sum(each.truth.any() for each in drawn) >= 3
    for each in drawn:
        assert not (each.truth & ~each.counted).any() or kind == 2  # digits may touch a caliper
        unmarked = each.counted & ~(cv2.dilate(each.truth.astype(np.uint8), np.ones((25, 25))) > 0)
        assert np.abs(each.noisy[unmarked].astype(int) - each.clean[unmarked]).max(initial=0) < 60


def test_the_same_seed_gives_the_same_samples(tmp_path: Path) -> None:
    frames = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), tissue(number))
        frames.append(CleanFrame(path, "made", f"made:{number}"))
    first, again = (list(samples(frames, 2, 3, 5, held_out=True)) for _ in range(2))
    assert all(np.array_equal(a.noisy, b.noisy) for a, b in zip(first, again, strict=True))
    assert all(each.truth.any() for each in first)


def test_the_truth_scores_best_and_nothing_found_scores_no_dice() -> None:
    clean = tissue(1)
    noisy = clean.copy()
    truth = np.zeros(clean.shape[:2], bool)
    truth[60:64, 40:120] = True
    noisy[truth] = 255
    sample = Marked(noisy, clean, truth, np.ones_like(truth))
    best = dict(zip(METRICS, scores(truth, clean, sample), strict=True))
    none = dict(zip(METRICS, scores(np.zeros_like(truth), noisy, sample), strict=True))
    assert best["Dice"] == best["IoU"] == best["SSIM"] == 1 and best["PSNR-HVS-M"] == 100
    assert none["Dice"] == 0 and none["SSIM"] < 1 and none["PSNR-HVS-M"] < 100
    moved = dict(zip(METRICS, scores(np.roll(truth, 1, axis=0), clean, sample), strict=True))
    assert moved["Dice"] < 1 and moved["Dice, 1 px"] == 1


def test_the_rival_answers_at_any_size() -> None:
    torch.manual_seed(0)
    assert restored(CostumedUNet().eval(), tissue(2, 70, 91)).shape == (70, 91, 3)
