import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.metrics import _MASKING, _SENSITIVITY, dice, iou, pixel_accuracy, psnr_hvs_m, ssim

masks = arrays.arrays(np.bool_, (6, 7))


def texture() -> np.ndarray:
    y, x = np.mgrid[0:64, 0:72].astype(float)
    pattern = 128 + 70 * np.sin(0.42 * x) * np.cos(0.31 * y) + 25 * ((x.astype(int) ^ y.astype(int)) % 13) / 6
    return np.clip(np.round(pattern), 0, 255).astype(np.uint8)


def gradient() -> np.ndarray:
    y, x = np.mgrid[0:64, 0:72].astype(float)
    return np.round(40 + 2 * x + y / 2).astype(np.uint8)


def noisy(image: np.ndarray, seed: int = 7) -> np.ndarray:
    noise = np.round(np.random.RandomState(seed).randn(*image.shape) * 9)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@given(masks, masks)
def test_overlap_scores_are_symmetric_bounded_and_tied_to_each_other(one: np.ndarray, other: np.ndarray) -> None:
    for score in (dice, iou, pixel_accuracy):
        assert 0 <= score(one, other) <= 1
        assert score(one, other) == score(other, one)
        assert score(one, one) == 1
    overlap = iou(one, other)
    assert dice(one, other) == pytest.approx(2 * overlap / (1 + overlap))


def test_overlap_scores_of_a_mask_worked_out_by_hand() -> None:
    found = np.array([[1, 1, 0, 0]], bool)
    true = np.array([[0, 1, 1, 1]], bool)
    assert dice(found, true) == pytest.approx(2 / 5)
    assert iou(found, true) == pytest.approx(1 / 4)
    assert pixel_accuracy(found, true) == pytest.approx(1 / 4)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    for image in (texture(), np.dstack([texture(), gradient(), 255 - texture()])):
        theirs = metrics.structural_similarity(
            image,
            noisy(image),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2 if image.ndim == 3 else None,
        )
        assert ssim(noisy(image), image) == pytest.approx(theirs, abs=1e-9)


def test_ssim_of_flat_images_is_the_luminance_term() -> None:
    dark, bright = np.full((16, 16), 100, np.uint8), np.full((16, 16), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(dark, bright) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_psnr_hvs_m_uses_the_published_tables() -> None:
    # Corners of the two tables in Ponomarenko's psnrhvsm.m.
    published = {(0, 0): (1.608443, 0.390625), (0, 7): (0.421887, 0.026874), (5, 5): (0.247453, 0.009246)}
    published |= {(7, 0): (0.357432, 0.019290), (7, 7): (0.259950, 0.010203), (2, 1): (1.979622, 0.591716)}
    for place, (sensitivity, masking) in published.items():
        assert _SENSITIVITY[place] == pytest.approx(sensitivity, abs=1e-6)
        assert _MASKING[place] == pytest.approx(masking, abs=1e-6)


@pytest.mark.parametrize("shift", [1, 5, 40])
def test_psnr_hvs_m_of_a_shifted_mean_follows_from_the_formula(shift: int) -> None:
    image = gradient()
    expected = 20 * math.log10(255 / (1.608443 * shift))
    assert psnr_hvs_m(image + np.uint8(shift), image) == pytest.approx(expected, abs=1e-5)


def test_psnr_hvs_m_agrees_with_the_reference_on_noise_and_blur() -> None:
    # Values of the reference implementation (psnrhvsm.m by way of the package psnr-hvsm) for the same pixels.
    assert psnr_hvs_m(noisy(texture()), texture()) == pytest.approx(35.934448, abs=2e-6)
    assert psnr_hvs_m(cv2.GaussianBlur(texture(), (5, 5), 1.0), texture()) == pytest.approx(28.500336, abs=2e-6)


def test_psnr_hvs_m_forgives_noise_where_texture_hides_it() -> None:
    flat = np.full_like(texture(), 128)
    assert psnr_hvs_m(noisy(texture()), texture()) > psnr_hvs_m(noisy(flat), flat)


def test_equal_images_have_no_noise() -> None:
    assert psnr_hvs_m(texture(), texture()) == math.inf
    assert ssim(texture(), texture()) == pytest.approx(1)


@pytest.mark.parametrize("score", [ssim, psnr_hvs_m])
def test_images_of_two_sizes_are_refused(score) -> None:
    with pytest.raises(ValueError, match="one size"):
        score(texture(), texture()[:32])


@given(st.integers(1, 30))
def test_more_noise_scores_lower(level: int) -> None:
    noise = np.random.RandomState(1).randn(64, 72)
    low, high = (np.clip(np.round(gradient() + noise * s), 0, 255).astype(np.uint8) for s in (level, 2 * level))
    assert psnr_hvs_m(high, gradient()) < psnr_hvs_m(low, gradient())
    assert ssim(high, gradient()) < ssim(low, gradient())
