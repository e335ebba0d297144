"""One small run from clean frames to weights that are served: every part meets the next."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models import recipe
from models.architectures.unshuffle_unet import UnshuffleUNet
from models.calibrate import Case, bands, beside, case_of, fit, logistic, outline
from models.checkpoint import CHECKPOINT
from models.dataset import CleanFrame, Split, clean_frames, split
from models.errors import DataError, Diverged, LeakySplit, RecipeError, TrainingError
from models.graph import Served, folded, refuse_disparity, write_graph
from models.loss import product_loss
from models.recipe import LossSettings
from models.runs import SPLIT, average_runs
from models.served import Output, Shares, Weights
from models.statistics import auroc, proportion
from models.train import train
from service.analyse.annotations import Calibration, Kind, Thresholds, read_marks
from service.analyse.close_ups import CloseUp


def tissue(rng: np.random.Generator, side: int = 96) -> np.ndarray:
    """Speckle that looks different in every frame."""
    noise = rng.normal(0, 1, (side, side)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 180, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for source, count in (("alpha", 12), ("beta", 4)):
        (folder / source).mkdir()
        for number in range(count):
            cv2.imwrite(str(folder / source / f"{source}_{number}.png"), tissue(rng))
    return folder


@pytest.fixture(scope="module")
def tiny() -> recipe.Recipe:
    smoke = recipe.load("smoke")
    return replace(
        smoke,
        steps=4,
        batch=2,
        pool=16,
        crops=replace(smoke.crops, side=64),
        split=replace(smoke.split, held_out_sources=("beta",), share=0.2),
    )


@pytest.fixture(scope="module")
def run(data: Path, tiny: recipe.Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny, data, tmp_path_factory.mktemp("run"))


def test_a_run_leaves_checkpoint_and_manifest(run: Path) -> None:
    checkpoint = torch.load(run / CHECKPOINT, weights_only=True)
    assert checkpoint["state"]["step"] == 4
    sides = json.loads((run / SPLIT).read_text())
    assert {frame["source"] for frame in sides["training"]} == {"alpha"}
    assert sum(frame["source"] == "beta" for frame in sides["validation"]) == 4


def test_a_run_resumes_where_it_stood(run: Path, data: Path, tiny: recipe.Recipe) -> None:
    train(replace(tiny, steps=6), data, run, resume=True)
    assert torch.load(run / CHECKPOINT, weights_only=True)["state"]["step"] == 6


def test_a_run_does_not_resume_on_other_data(run: Path, data: Path, tiny: recipe.Recipe) -> None:
    other = replace(tiny, split=replace(tiny.split, held_out_sources=("alpha",)))
    with pytest.raises(RecipeError, match="changed"):
        train(other, data, run, resume=True)


def test_an_averaged_run_lies_between_its_runs(run: Path, data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    longer = train(replace(tiny, steps=2), data, tmp_path / "longer", start_from=run)
    mean = average_runs([run, longer], tmp_path / "mean")
    first, second, middle = (
        torch.load(folder / CHECKPOINT, weights_only=True)["average"]["head.0.bias"] for folder in (run, longer, mean)
    )
    assert not torch.equal(first, second)
    assert torch.allclose(middle, (first + second) / 2)


def test_runs_with_other_splits_have_no_average(run: Path, data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    other = train(replace(tiny, steps=1, split=replace(tiny.split, share=0.4)), data, tmp_path / "other")
    with pytest.raises(LeakySplit, match="held out"):
        average_runs([run, other], tmp_path / "mean")


def test_a_loss_that_is_no_number_stops_the_run(data: Path, tiny: recipe.Recipe, tmp_path: Path) -> None:
    broken = replace(tiny, loss=replace(tiny.loss, dice=float("nan")))
    with pytest.raises(Diverged, match=r"is nan.*lower `optimiser\.rate`"):
        train(broken, data, tmp_path)


def test_the_exported_graph_answers_as_the_network_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UnshuffleUNet(channels=(8, 16, 16, 16, 16), dilations=(1,)).eval()
    served = Served(folded(network))
    write_graph(served, tmp_path / "model.onnx")
    refuse_disparity(served, tmp_path / "model.onnx")


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    one, other = (Served(UnshuffleUNet(channels=(8, 16, 16, 16, 16)).eval()) for _ in range(2))
    with torch.no_grad():
        other.network.head[0].bias += 1.0
    write_graph(one, tmp_path / "model.onnx")
    with pytest.raises(TrainingError, match="differs"):
        refuse_disparity(other, tmp_path / "model.onnx")


def test_weights_that_do_not_match_their_card_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"something else")
    (tmp_path / "card.toml").write_text('sha256 = "00"\n')
    with pytest.raises(DataError, match="card"):
        Weights(tmp_path)


def test_frames_of_one_clip_stay_on_one_side(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = tissue(rng)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.roll(frame, ord(name) % 2, axis=1))
    cv2.imwrite(str(tmp_path / "c.png"), tissue(rng))
    groups = {frame.path.stem: frame.group for frame in clean_frames(tmp_path)}
    assert groups["a"] == groups["b"] != groups["c"]


def test_a_split_that_shares_a_patient_is_refused(tmp_path: Path) -> None:
    frames = [CleanFrame(tmp_path / f"{name}.png", "s", "s:patient") for name in "ab"]
    with pytest.raises(LeakySplit, match="share"):
        Split((frames[0],), (frames[1],)).refuse_leaks()


def test_a_patient_of_a_held_out_source_is_held_out_everywhere(tmp_path: Path) -> None:
    frames = [CleanFrame(tmp_path / "a.png", "away", "p1"), CleanFrame(tmp_path / "b.png", "home", "p1")]
    frames += [CleanFrame(tmp_path / f"{n}.png", "home", f"home:{n}") for n in range(8)]
    parts = split(frames, ["away"], 0.1, seed=3)
    assert {"p1"} <= {frame.group for frame in parts.validation}
    assert "p1" not in {frame.group for frame in parts.training}


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No image"):
        clean_frames(tmp_path)


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(DataError, match=r"broken\.png"):
        clean_frames(tmp_path)


def test_an_unknown_key_in_a_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("steps = 1\nspeed = 9\n")
    with pytest.raises(RecipeError, match="speed"):
        recipe.load(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("said", "key", "cure"),
    [
        ('steps = "many"', "steps = 'many'", "Write a whole number"),
        ("steps = 0", "steps = 0", "Write 1 or more"),
        ("steps = true", "steps = True", "Write a whole number"),
        ("steps = 1\nbatch = 0", "batch = 0", "Write 1 or more"),
        ("steps = 1\nnetwork = 3", "network = 3", "Write a table"),
        ("steps = 1\n[network]\nchannels = [8]", r"channels = \[8\]", "Write 2 to 5 numbers"),
        ('steps = 1\n[network]\nchannels = ["8", "16"]', "channels = ", "of whole numbers"),
        ('steps = 1\n[optimiser]\nlayers = "some"', "layers = 'some'", "There are all, last"),
        ("steps = 1\n[optimiser]\nrate = nan", "rate = nan", "Write a number"),
        ("steps = 1\n[crops]\nside = 50", "side = 50", "multiple of 32"),
        ("steps = 1\n[split]\nshare = 3", "share = 3", "Write 0 to 0.95"),
        ('steps = 1\n[split]\nheld_out_sources = "usgra"', "held_out_sources = 'usgra'", "Write a list"),
    ],
)
def test_a_value_that_cannot_be_is_named_before_anything_is_written(
    tmp_path: Path, said: str, key: str, cure: str
) -> None:
    (tmp_path / "r.toml").write_text(said)
    with pytest.raises(RecipeError, match=rf"r\.toml says {key}") as refused:
        recipe.load(tmp_path / "r.toml")
    assert cure in refused.value.cure


@pytest.mark.parametrize("name", ["product", "gpu", "refine", "smoke", "adapt"])
def test_shipped_recipes_load(name: str) -> None:
    assert recipe.load(name).steps > 0


def test_the_right_answer_costs_least() -> None:
    torch.manual_seed(0)
    kinds = torch.zeros(2, 32, 32, dtype=torch.int64)
    kinds[:, 8:20, 8:20] = 2
    second = torch.rand(2, 3, 32, 32)
    right = torch.nn.functional.one_hot(kinds, 6).permute(0, 3, 1, 2).float() * 12
    costs = {
        name: float(product_loss(frame, logits, second, kinds, LossSettings())[0])
        for name, frame, logits in (
            ("right", second, right),
            ("no mark", second, torch.zeros_like(right).index_fill(1, torch.tensor([0]), 12.0)),
            ("nothing restored", 1 - second, right),
        )
    }
    assert costs["right"] < 0.2 < min(costs["no mark"], costs["nothing restored"])


def test_calibration_never_weighs_evidence_against_a_mark() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.4
    features = rng.normal(0, 1, (200, 7)) + truth[:, None] * np.array([2, 1, 0, -1, -2, 0, 1])
    fitted = logistic(features, truth)
    assert min(fitted.mass, fitted.support, fitted.peak, fitted.core, fitted.rows, fitted.columns, fitted.total) >= 0
    assert auroc(fitted.score(features), truth).value > 0.85


def test_the_present_threshold_keeps_clean_frames_clean() -> None:
    truth = np.array([True] * 50 + [False] * 200)
    scores = np.r_[np.linspace(0.4, 1, 50), np.linspace(0, 0.7, 200)]
    clean = np.arange(250) >= 150
    absent, present = bands(scores, truth, clean)
    assert absent <= present
    assert (scores[clean] < present).mean() >= 0.99
    weighted = (scores[clean] < present).mean() * 2 / 3 + (scores[~truth & ~clean] < present).mean() / 3
    assert weighted >= 0.95


def test_intervals_agree_with_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17: 857, table I, method 3: 81 of 263 gives 0.2553 to 0.3662.
    wilson = proportion(81, 263)
    assert (round(wilson.low, 4), round(wilson.high, 4)) == (0.2553, 0.3662)
    assert auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]).value == pytest.approx(0.75)


Shown = tuple[Output, np.ndarray | None]


def looked_at(kind: Kind, seen_near: bool, seen_far: bool, marked: bool, strength: int) -> Shown:
    """A frame of which each look sees a mark or none, and what was drawn on it."""
    number = list(Kind).index(kind)
    planes = []
    for side, sees in ((40, seen_near), (28, seen_far)):
        plane = np.zeros((5, side, side), np.uint8)
        plane[number, side // 5 : side // 2, side // 5 : side // 2] = strength if sees else 0
        planes.append(plane)
    frame = np.zeros((40, 40, 3), np.uint8)
    labels = np.zeros((40, 40), np.uint8) if marked else None
    if labels is not None:
        labels[8:20, 8:20] = number + 1
    return Output(frame, frame, frame[..., 0] + 200, *planes), labels


def cases_of(shown: list[Shown], kind: Kind, far: float = 0.0, close: float = 0.0) -> list[Case]:
    """As the kind is seen where the further looks count this much."""
    shares = Shares([far] * len(Kind), [close] * len(Kind))
    return [
        case_of(output.together(shares), kind, labels, 0 if labels is None else np.count_nonzero(labels))
        for output, labels in shown
    ]


def test_large_kinds_are_fitted_on_both_looks() -> None:
    strengths = range(150, 250, 5)
    misled = [
        looked_at(Kind.COLOR_BOX, True, there, there, strength) for strength in strengths for there in (True, False)
    ]
    both = fit(cases_of(misled, Kind.COLOR_BOX, far=0.5), Kind.COLOR_BOX)
    assert both.sensitivity == both.specificity == 1.0
    once = fit(cases_of(misled, Kind.COLOR_BOX), Kind.COLOR_BOX)
    assert min(once.sensitivity, once.specificity) < 1.0


def test_every_kind_is_fitted_on_close_ups_where_they_were_taken() -> None:
    """What the first look takes for calipers on frames with and without one, close-ups tell apart."""
    place, drawn = CloseUp(0, 0, slice(0, 40), slice(0, 40)), np.zeros((5, 256, 256), np.uint8)
    drawn[1, 10:26, 10:26] = 255
    misled = []
    for strength in range(150, 250, 5):
        for there in (True, False):
            output, labels = looked_at(Kind.CALIPER, True, False, there, strength)
            closely = ((place, drawn if there else np.zeros_like(drawn)),)
            misled.append((replace(output, far=None, closely=closely), labels))
    both = fit(cases_of(misled, Kind.CALIPER, close=0.5), Kind.CALIPER)
    assert both.sensitivity == both.specificity == 1.0
    once = fit(cases_of(misled, Kind.CALIPER), Kind.CALIPER)
    assert min(once.sensitivity, once.specificity) < 1.0


def test_a_kind_that_no_frame_shows_cannot_be_fitted() -> None:
    shown = [looked_at(Kind.COLOR_BOX, there, there, there, 200) for there in (True, False)] * 4
    none, every = [(output, None) for output, _ in shown], shown[::2]
    for some, what in ((none, "none shows the kind color_box"), (every, "lacks")):
        with pytest.raises(TrainingError, match=what) as refused:
            fit(cases_of(some, Kind.COLOR_BOX), Kind.COLOR_BOX)
        assert "--samples" in refused.value.cure


def test_the_outline_is_where_masks_overlap_best() -> None:
    plane = np.zeros((5, 40, 40), np.uint8)
    plane[1, 8:20, 8:30] = 120  # a soft rim round what was drawn
    plane[1, 12:16, 8:30] = 240
    labels = np.where(plane[1] > 200, 2, 0).astype(np.uint8)
    frame = np.zeros((40, 40, 3), np.uint8)
    case = case_of(Output(frame, frame, plane[1], plane), Kind.CALIPER, labels, 88)
    assert 120 / 255 < outline([case]) <= 240 / 255


def test_what_specks_beside_a_mark_score_alone_is_too_little() -> None:
    plane = np.zeros((5, 80, 80), np.uint8)
    plane[1, 8:20, 8:30] = 240
    plane[1, 60:64, 60:64] = 240  # a speck where nothing was drawn
    labels = np.zeros((80, 80), np.uint8)
    labels[8:20, 8:30] = 2
    frame = np.zeros((80, 80, 3), np.uint8)
    output = Output(frame, frame, plane[1], plane)
    limits = Thresholds(pixel=0.5, min_pixels=12, absent=0.2, present=0.5)
    calibration = Calibration(-6.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.8)
    level = beside([case_of(output, Kind.CALIPER, labels, 264)], limits, calibration)
    found = read_marks(
        plane, None, {kind: replace(limits, beside=level) for kind in Kind}, dict.fromkeys(Kind, calibration)
    )
    assert len(found.annotations) == 1
    both_drawn = np.where(plane[1] > 0, 2, 0).astype(np.uint8)
    assert beside([case_of(output, Kind.CALIPER, both_drawn, 280)], limits, calibration) == 0


def test_most_clean_frames_are_surely_without_the_mark() -> None:
    rng = np.random.default_rng(4)
    truth = np.arange(300) < 100
    clean = np.arange(300) >= 200
    # A few marks are hardly seen; they must not make every clean frame uncertain.
    scores = np.where(truth, np.where(rng.random(300) < 0.1, 0.02, rng.uniform(0.6, 1, 300)), rng.uniform(0, 0.3, 300))
    absent, present = bands(scores, truth, clean)
    assert (scores[clean] < absent).mean() >= 0.9 and absent < present
