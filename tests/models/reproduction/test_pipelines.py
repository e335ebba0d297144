"""Each defect of the published pipeline can be turned on alone, and does what it is said to do."""

import numpy as np
import pytest
import torch

from models.errors import RecipeError
from models.metrics import ssim
from models.reproduction.datasets import NATIVE, STORED, annotated, degraded, sample
from models.reproduction.inputs import to_levels, to_network, to_uint8
from models.reproduction.losses import LOSSES, RestorationLoss
from models.reproduction.pipelines import PIPELINES, SWITCHES, Defects, pipeline
from models.reproduction.scoring import chosen_threshold, masks, residuals

RIGHT = Defects()


def frame(seed: int = 0) -> np.ndarray:
    """Speckle with structure, darker below, as ultrasound is."""
    rng = np.random.default_rng(seed)
    y = np.linspace(1, 0.3, 600)[:, None, None]
    speckle = rng.gamma(2.0, 25.0, (600, 700, 1)) * y
    return np.clip(speckle, 0, 255).astype(np.uint8).repeat(3, axis=2)


def test_the_two_pipelines_have_all_defects_and_none() -> None:
    assert len(SWITCHES) == 10
    assert all(getattr(PIPELINES["as-published"], switch) for switch in SWITCHES)
    assert not any(getattr(PIPELINES["corrected"], switch) for switch in SWITCHES)


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_recipe_turns_one_switch(switch: str) -> None:
    with_it, without = pipeline(f"corrected with {switch}"), pipeline(f"as-published without {switch}")
    assert [name for name in SWITCHES if getattr(with_it, name)] == [switch]
    assert [name for name in SWITCHES if not getattr(without, name)] == [switch]


@pytest.mark.parametrize("name", ["perfect", "corrected with luck", "corrected has otsu_threshold"])
def test_an_unknown_pipeline_is_refused(name: str) -> None:
    with pytest.raises(RecipeError):
        pipeline(name)


def test_1_the_clean_target_skips_the_chain_of_its_input() -> None:
    right = sample(frame(), "body_marker", np.random.default_rng(1), RIGHT)
    assert np.array_equal(right.target, right.clean)
    defects = pipeline("corrected with clean_target_skips_chain")
    wrong = sample(frame(), "body_marker", np.random.default_rng(1), defects)
    assert np.array_equal(wrong.noisy, right.noisy)
    assert not np.array_equal(wrong.target, wrong.clean)


def test_2_otsu_finds_marks_where_there_are_none() -> None:
    nothing = np.random.default_rng(2).integers(0, 4, (3, 64, 64)).astype(np.uint8)
    assert masks(nothing, None).mean() > 0.2
    assert not masks(nothing, 40).any()


def test_3_nearest_neighbours_drop_a_third_of_thin_lines() -> None:
    clean = np.zeros((NATIVE, NATIVE, 3), np.uint8)
    clean[:, ::8] = 255
    lines = NATIVE // 8
    kept = {name: degraded(clean, defects)[STORED // 2, :, 0] > 40 for name, defects in PIPELINES.items()}
    starts = {name: int(np.count_nonzero(np.diff(row.astype(int)) == 1) + row[0]) for name, row in kept.items()}
    assert starts["corrected"] == lines
    assert starts["as-published"] == pytest.approx(STORED / NATIVE * lines, abs=2)


def test_4_a_cast_that_wraps_spoils_a_nearly_perfect_answer() -> None:
    truth = frame()[:256, :256].astype(float)
    truth[200:] = 0
    answer = truth + np.random.default_rng(3).normal(0, 0.5, truth.shape)
    clamped, wrapped = (to_uint8(answer, wrapping=wrapping) for wrapping in (False, True))
    reference = to_uint8(truth, wrapping=False)
    assert ssim(clamped, reference) > 0.99 > ssim(wrapped, reference)
    assert to_uint8(np.array([256.0, -1.0, 300.7]), wrapping=True).tolist() == [0, 255, 44]
    assert to_uint8(np.array([256.0, -1.0, 300.7]), wrapping=False).tolist() == [255, 0, 255]


@pytest.mark.parametrize("scheme", ["linear", "SMN"])
def test_5_levels_survive_the_way_through_a_network_unless_left_unscaled(scheme: str) -> None:
    image = frame()[None, :64, :64]
    seen = to_network(image, scheme)
    assert np.array_equal(to_uint8(to_levels(seen, scheme, unscaled=False), wrapping=False), image)
    unchanged = to_levels(to_network(image, "linear"), "linear", unscaled=False)
    assert np.array_equal(to_uint8(unchanged, wrapping=True), image)
    unscaled = to_uint8(to_levels(seen, scheme, unscaled=True), wrapping=False)
    assert np.array_equal(unscaled, image) == (scheme == "linear")


def test_6_half_of_the_radial_lines_have_the_mask_of_another_icon() -> None:
    def agreement(defects: Defects) -> list[bool]:
        drawn = (sample(frame(i), "radial_line", np.random.default_rng(i), defects) for i in range(12))
        changed = ((np.abs(one.noisy.astype(int) - one.clean).max(axis=2) > 60, one.mask) for one in drawn)
        return [bool((seen & mask).sum() > 0.5 * seen.sum()) for seen, mask in changed]

    assert sum(agreement(RIGHT)) >= 11
    assert 2 <= sum(agreement(pipeline("corrected with wrong_icon_masks"))) <= 10


def loss(name: str, *, published: bool, whole: bool = True, side: int = 8) -> float:
    generator = torch.Generator().manual_seed(4)
    one, other = (torch.rand(1, 3, side, side, generator=generator) for _ in range(2))
    marked = torch.zeros(1, 1, side, side)
    marked[..., :2, :2] = 1
    return RestorationLoss(name, published_scales=published, whole_frame=whole)(one, other, marked).item()


def test_7_published_losses_are_one_function_twice_and_on_two_scales() -> None:
    assert loss("Huber", published=True) == pytest.approx(loss("Smooth L1", published=True))
    assert loss("Huber", published=False) != pytest.approx(loss("Smooth L1", published=False), rel=0.02)
    assert loss("L2", published=True, side=16) > 2 * loss("L2", published=True, side=8)
    assert loss("L2", published=False, side=16) == pytest.approx(loss("L2", published=False, side=8), rel=0.3)
    assert loss("L2", published=True) == pytest.approx(3 * 8 * 8 * loss("L2", published=False))


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_compound_loss_is_the_sum_of_its_terms(name: str, published: bool) -> None:
    terms = [loss(term, published=published) for term in LOSSES[name]]
    assert loss(name, published=published) == pytest.approx(sum(terms), rel=1e-5)


def test_8_a_one_sided_residual_misses_dark_marks() -> None:
    noisy, restored = np.full((1, 4, 4, 3), 100, np.uint8), np.full((1, 4, 4, 3), 100, np.uint8)
    noisy[0, 0], noisy[0, 1] = 180, 20
    both = residuals(noisy, restored, RIGHT)
    one = residuals(noisy, restored, pipeline("corrected with one_sided_residual"))
    assert (both[0, :2] == 80).all() and not both[0, 2:].any()
    assert (one[0, 0] == 80).all() and not one[0, 1:].any()


def test_9_on_whole_frames_leaving_a_mark_costs_almost_nothing() -> None:
    target, marked = torch.zeros(1, 3, 100, 100), torch.zeros(1, 1, 100, 100)
    marked[..., :5, :10] = 1
    left = marked.expand_as(target)
    whole = RestorationLoss("L1", published_scales=False, whole_frame=True)(left, target, marked)
    balanced = RestorationLoss("L1", published_scales=False, whole_frame=False)(left, target, marked)
    assert whole.item() == pytest.approx(0.005)
    assert balanced.item() == pytest.approx(1.0)


@pytest.mark.parametrize(("kind", "central"), [("body_marker", False), ("radial_line", True)])
def test_10_published_marks_have_their_places(kind: str, central: bool) -> None:
    clean = np.full((NATIVE, NATIVE, 3), 60, np.uint8)
    for seed in range(6):
        ys, xs = np.nonzero(annotated(clean, kind, np.random.default_rng(seed), fixed_places=True).kind)
        centre = np.array([(ys.min() + ys.max() + 1) / 2, (xs.min() + xs.max() + 1) / 2]) / NATIVE
        assert bool((np.abs(centre - 0.5) < 0.25).all()) == central


def test_a_threshold_is_the_level_that_overlaps_best() -> None:
    truth = np.zeros((2, 32, 32), bool)
    truth[:, 8:16, 8:16] = True
    residual = np.where(truth, 90, np.random.default_rng(5).integers(0, 50, truth.shape)).astype(np.uint8)
    threshold = chosen_threshold(residual, truth)
    assert 48 <= threshold < 90
    assert np.array_equal(masks(residual, threshold), truth)
