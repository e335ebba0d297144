"""How good a mask and a restoration are: Dice, IoU and pixel accuracy; SSIM and PSNR-HVS-M."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float64]


def dice(found: Mask, true: Mask) -> float:
    """2·|both| / (|found| + |true|) of two masks of one shape; 1 when neither has a pixel."""
    total = np.count_nonzero(found) + np.count_nonzero(true)
    return 2 * np.count_nonzero(found & true) / total if total else 1.0


def iou(found: Mask, true: Mask) -> float:
    """Intersection over union of two masks of one shape; 1 when neither has a pixel."""
    union = np.count_nonzero(found | true)
    return np.count_nonzero(found & true) / union if union else 1.0


def pixel_accuracy(found: Mask, true: Mask) -> float:
    """Share of pixels, marked or not, on which two masks of one shape agree."""
    return np.count_nonzero(found == true) / found.size


def ssim(image: Image, reference: Image) -> float:
    """Structural similarity (Wang et al. 2004) of uint8 images, (H, W) or (H, W, C), sides of at least 11 pixels.

    Gaussian window of 11 pixels with σ = 1.5, K₁ = 0.01, K₂ = 0.03; the mean over the channels and over the pixels
    whose window lies inside the image.
    """
    _refuse_unequal(image, reference, _WINDOW)
    x, y = image.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _smoothed(x), _smoothed(y)
    variance_x, variance_y = _smoothed(x * x) - mean_x**2, _smoothed(y * y) - mean_y**2
    covariance = _smoothed(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))
    return float((luminance * structure)[inside, inside].mean())


_WINDOW = 11


def _refuse_unequal(image: Image, reference: Image, side: int) -> None:
    if image.shape != reference.shape or min(image.shape[:2]) < side:
        raise ValueError(f"two images of one size of at least {side} pixels, not {image.shape}, {reference.shape}")


def _smoothed(image: Plane) -> Plane:
    return np.asarray(cv2.GaussianBlur(image, (_WINDOW, _WINDOW), 1.5), np.float64)


# Luminance quantisation of JPEG (ISO/IEC 10918-1, table K.1). Both tables of Ponomarenko 2007 derive from it: the
# contrast sensitivity is 25.735088 / Q, the masking weights are (10 / Q)².
_QUANTISATION = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float64,
)
_SENSITIVITY = 25.735088 / _QUANTISATION
_MASKING = (10 / _QUANTISATION) ** 2
_MASKING_AC = _MASKING * (np.arange(64).reshape(8, 8) > 0)


def psnr_hvs_m(image: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio in dB as far as people see the noise (Ponomarenko et al. 2007); inf for equal images.

    uint8, (H, W) or RGB (H, W, 3), which is compared by its luma. Whole 8x8 blocks count; what is left at the right
    and lower edge does not. An error in a DCT coefficient counts by the eye's contrast sensitivity, less what the
    block's own texture hides.
    """
    _refuse_unequal(image, reference, 8)
    blocks, truths = _blocks(_luma(image)), _blocks(_luma(reference))
    spectra, true_spectra = (dctn(some, axes=(2, 3), norm="ortho") for some in (blocks, truths))
    hidden = np.maximum(_masked_contrast(blocks, spectra), _masked_contrast(truths, true_spectra))
    tolerance = hidden[..., None, None] / _MASKING
    tolerance[..., 0, 0] = 0.0  # a shift of the block's mean is never hidden
    seen = np.maximum(np.abs(spectra - true_spectra) - tolerance, 0.0) * _SENSITIVITY
    error = float((seen**2).mean())
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")


def _luma(image: Image) -> Plane:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return grey.astype(np.float64)


def _blocks(plane: Plane) -> Plane:
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    return plane[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).swapaxes(1, 2)


def _masked_contrast(blocks: Plane, spectra: Plane) -> Plane:
    """What a block's texture hides: its weighted energy, less when an edge gathers the variance in one quarter."""
    energy = (spectra**2 * _MASKING_AC).sum(axis=(2, 3))
    whole = _scatter(blocks)
    quarters = sum(_scatter(blocks[..., i : i + 4, j : j + 4]) for i in (0, 4) for j in (0, 4))
    evenness = np.divide(quarters, whole, out=np.zeros_like(whole), where=whole > 0)
    hidden: Plane = np.sqrt(energy * evenness) / 32
    return hidden


def _scatter(blocks: Plane) -> Plane:
    """Sample variance times the number of pixels, as the reference defines it."""
    scatter: Plane = blocks.var(axis=(2, 3), ddof=1) * blocks.shape[2] * blocks.shape[3]
    return scatter
