"""Scores of a trained cell on the test crops, as its pipeline measures them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from torch import nn

from models.metrics import dice, iou, pixel_accuracy, psnr_hvs_m, ssim
from models.reproduction.crops import Data
from models.reproduction.inputs import Images
from models.reproduction.pipelines import Defects
from models.reproduction.recipes import Cell
from models.reproduction.training import restorations

Planes = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]

METRICS = ("dice", "iou", "pa", "ssim", "psnr_hvs_m", "marked_clean")
"""`marked_clean` is the share of a clean crop's pixels taken for marks; the others are those of the paper."""

# An image equal to its reference has no finite PSNR; this stands for it in means.
_BEST_PSNR = 100.0


@dataclass(frozen=True)
class Scores:
    """One value per test crop and metric; `threshold` is None where Otsu's method chose one for every crop."""

    values: dict[str, list[float]]
    threshold: int | None


def score(network: nn.Module, cell: Cell, data: Data) -> Scores:
    """Measure on the test crops. The threshold, where one is chosen, comes from the validation crops alone."""
    defects, test = cell.defects, data.test
    threshold = None
    if not defects.otsu_threshold:
        threshold = chosen_threshold(
            residuals(data.validation.noisy, restorations(network, cell, data.validation.noisy), defects),
            data.validation.mask,
        )
    restored = restorations(network, cell, test.noisy)
    found = masks(residuals(test.noisy, restored, defects), threshold)
    on_clean = masks(residuals(test.clean, restorations(network, cell, test.clean), defects), threshold)
    values: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for image, clean, mask, truth, false in zip(restored, test.clean, found, test.mask, on_clean, strict=True):
        values["dice"].append(dice(mask, truth))
        values["iou"].append(iou(mask, truth))
        values["pa"].append(pixel_accuracy(mask, truth))
        values["ssim"].append(ssim(image, np.ascontiguousarray(clean)))
        values["psnr_hvs_m"].append(min(_BEST_PSNR, psnr_hvs_m(image, np.ascontiguousarray(clean))))
        values["marked_clean"].append(float(false.mean()))
    return Scores({metric: [round(value, 5) for value in several] for metric, several in values.items()}, threshold)


def residuals(noisy: Images, restored: Images, defects: Defects) -> Planes:
    """What a restoration took away, uint8 (n, H, W): largest over the channels; one-sided, only what it darkened."""
    difference = noisy.astype(np.int16) - restored
    taken = difference if defects.one_sided_residual else np.abs(difference)
    planes: Planes = np.clip(taken.max(axis=3), 0, 255).astype(np.uint8)
    return planes


def masks(residuals_: Planes, threshold: int | None) -> Masks:
    """Residuals above a threshold; without one, above the one Otsu's method finds for each."""
    if threshold is not None:
        return residuals_ > threshold
    return np.stack([residual > cv2.threshold(residual, 0, 255, cv2.THRESH_OTSU)[0] for residual in residuals_])


def chosen_threshold(residuals_: Planes, truths: Masks) -> int:
    """The grey level above which residuals overlap best with the true masks, by their mean Dice."""
    levels = range(2, 255, 2)
    overlap = [
        np.mean([dice(found, truth) for found, truth in zip(residuals_ > level, truths, strict=True)])
        for level in levels
    ]
    return levels[int(np.argmax(overlap))]
