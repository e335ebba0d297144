"""The whole sample: what its labels say, what it repeats, and that no frame or seed breaks it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.corruption import KINDS, Sample, corrupt
from models.corruption.strokes import noise


def tissue(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    grey = np.clip(70 + 30 * noise(rng, width, height, 4) + 25 * noise(rng, width, height, 40), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def differ(a: Sample, b: Sample) -> bool:
    return any(not np.array_equal(x, y) for x, y in ((a.noisy, b.noisy), (a.clean, b.clean), (a.labels, b.labels)))


def test_a_seed_repeats_its_sample_and_another_does_not() -> None:
    frame = tissue(240, 320)
    first, again, other = (corrupt(frame, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert not differ(first, again)
    assert np.array_equal(first.noisy_again, again.noisy_again)
    assert differ(first, other)


def test_the_given_frame_stays_as_it_was() -> None:
    frame = tissue(200, 260)
    before = frame.copy()
    for seed in range(20):
        corrupt(frame, np.random.default_rng(seed))
    assert np.array_equal(frame, before)


def test_kinds_are_those_in_the_labels() -> None:
    frame = tissue(240, 320)
    seen = set()
    for seed in range(60):
        sample = corrupt(frame, np.random.default_rng(seed))
        assert sample.kinds == tuple(KINDS[i - 1] for i in np.unique(sample.labels) if i)
        seen |= set(sample.kinds)
    assert seen == set(KINDS)


def test_a_quarter_of_the_samples_is_clean_and_many_have_several_kinds() -> None:
    frame = tissue(200, 256)
    kinds = [corrupt(frame, np.random.default_rng(seed)).kinds for seed in range(240)]
    clean = sum(not k for k in kinds) / len(kinds)
    several = sum(len(k) > 1 for k in kinds) / len(kinds)
    # Three standard errors round 25 %, with room for marks that fell off the frame.
    assert 0.17 < clean < 0.36
    assert several > 0.3


def test_an_unmarked_sample_is_its_clean_frame() -> None:
    frame = tissue(200, 256)
    unmarked = [s for s in (corrupt(frame, np.random.default_rng(seed)) for seed in range(60)) if not s.kinds]
    assert unmarked
    assert sum(np.array_equal(s.noisy, s.clean) for s in unmarked) >= 0.8 * len(unmarked)


def test_both_renderings_share_one_clean_frame_and_one_degradation() -> None:
    frame = tissue(240, 320)
    for seed in range(40):
        sample = corrupt(frame, np.random.default_rng(seed))
        assert sample.clean.shape == sample.noisy.shape == sample.noisy_again.shape
        untouched = sample.labels == 0
        # JPEG and blur spread a mark a little; most of the frame is the same.
        assert np.median(np.abs(sample.noisy.astype(int) - sample.clean)[untouched]) <= 1


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(60, 420),
    width=st.integers(60, 420),
    seed=st.integers(0, 2**32 - 1),
    held_out=st.booleans(),
    screen=st.sampled_from([None, True, False]),
)
def test_any_frame_and_seed_gives_a_well_formed_sample(
    height: int, width: int, seed: int, held_out: bool, screen: bool | None
) -> None:
    sample = corrupt(tissue(height, width, seed % 5), np.random.default_rng(seed), held_out=held_out, screen=screen)
    h, w = sample.labels.shape
    for image in (sample.clean, sample.noisy, sample.noisy_again):
        assert image.dtype == np.uint8 and image.shape == (h, w, 3)
        assert image.flags.c_contiguous
    assert sample.labels.dtype == np.uint8 and sample.labels.max(initial=0) <= len(KINDS)


@pytest.mark.parametrize("size", [(60, 80), (64, 64), (80, 600), (600, 70), (1455, 2083)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    for seed in range(6):
        sample = corrupt(tissue(*size), np.random.default_rng(seed))
        assert 0.15 < sample.noisy.size / (3 * size[0] * size[1]) < 2.5


def test_black_and_white_frames_take_marks_too() -> None:
    for level in (0, 255):
        frame = np.full((150, 200, 3), level, np.uint8)
        for seed in range(20):
            corrupt(frame, np.random.default_rng(seed))


@pytest.mark.parametrize(
    "frame", [np.zeros((50, 50), np.uint8), np.zeros((50, 50, 3), np.float32), np.zeros((50, 50, 4), np.uint8)]
)
def test_a_frame_that_is_no_rgb_image_is_refused(frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 HxWx3"):
        corrupt(frame, np.random.default_rng(0))


def test_the_second_rendering_seldom_marks_the_same_pixels() -> None:
    # Noise2Noise learns the clean frame only where fewer than half of the targets are marked.
    frame = tissue(300, 400)
    marked = again = 0
    for seed in range(80):
        sample = corrupt(frame, np.random.default_rng(seed))
        other = np.abs(sample.noisy_again.astype(int) - sample.clean).max(axis=2) > 40
        marked += np.count_nonzero(sample.labels)
        again += np.count_nonzero(other & (sample.labels > 0))
    assert again < 0.25 * marked
