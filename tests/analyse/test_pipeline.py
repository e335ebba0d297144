"""From a file to annotations."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.analyse import restoration
from service.analyse.annotations import Kind
from service.analyse.pipeline import Assessment, Pipeline, spread
from service.analyse.restoration import Network
from service.errors import NetworkError, Undecodable
from service.settings import Settings
from tests.tiny_network import YELLOW, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny")


@pytest.fixture
def pipeline(house: Settings, weights: Path) -> Pipeline:
    return Pipeline(Network(weights), cine_frames=4)


def crossed(scale: int = 1) -> np.ndarray:
    frame = np.full((120, 160, 3), 70, np.uint8)
    frame[60, 40:61] = frame[50:71, 50] = YELLOW
    return np.repeat(np.repeat(frame, scale, 0), scale, 1)


def saved(path: Path, frame: np.ndarray) -> Path:
    cv2.imwrite(str(path), frame[..., ::-1])
    return path


def test_a_mark_is_found_where_it_was_drawn(pipeline: Pipeline, tmp_path: Path) -> None:
    assessment = pipeline.assess(saved(tmp_path / "marked.png", crossed()))
    (frame,) = assessment.frames
    (mark,) = frame.annotations
    assert (frame.number, frame.rows, frame.columns) == (1, 120, 160)
    assert (mark.kind, mark.box, mark.pixels) == (Kind.CALIPER, (40, 50, 21, 21), 41)
    assert set(frame.scores) == set(Kind) and frame.scores["caliper"] > 0.9 > frame.scores["arrow"]
    mask = cv2.imdecode(np.frombuffer(frame.mask_png(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (mask == 2 * (crossed() == YELLOW).all(axis=2)).all()
    assert assessment.network == pipeline.version and assessment.bands["caliper"] == (0.4, 0.6)
    assert {"open", "decode", "restore", "read"} <= set(assessment.milliseconds)


def test_marks_on_a_reduced_frame_are_told_in_its_own_pixels(pipeline: Pipeline, tmp_path: Path) -> None:
    large = crossed(scale=16)  # 2560 columns, over the tiny network's 1024
    (frame,) = pipeline.assess(saved(tmp_path / "large.png", large)).frames
    (mark,) = frame.annotations
    assert (frame.rows, frame.columns) == frame.mask.shape == (1920, 2560)
    assert np.abs(np.array(mark.box) - np.array((640, 800, 336, 336))).max() <= 8
    assert abs(mark.pixels / (41 * 256) - 1) < 0.25


def test_of_a_cine_frames_are_spread_evenly(pipeline: Pipeline, real_data: Path) -> None:
    path = next((real_data / "dicom").glob("sonosite*.dcm"))
    assessment = pipeline.assess(path)
    assert assessment.number_of_frames == 30
    assert [frame.number for frame in assessment.frames] == list(spread(30, 4)) == [4, 12, 19, 27]


@given(frames=st.integers(1, 5000), at_most=st.integers(1, 40))
def test_the_spread_is_even_and_inside(frames: int, at_most: int) -> None:
    numbers = spread(frames, at_most)
    assert len(numbers) == min(frames, at_most) == len(set(numbers))
    assert numbers[0] >= 1 and numbers[-1] <= frames
    steps = np.diff(numbers)
    assert steps.size == 0 or steps.max() - steps.min() <= 1
    assert abs((numbers[0] - 1) - (frames - numbers[-1])) <= 1


def test_a_restoration_changes_nothing_outside_the_mask(pipeline: Pipeline) -> None:
    frame = crossed()
    restoration = pipeline.restore(frame)
    yellow = (frame == YELLOW).all(axis=2)
    near = cv2.dilate(yellow.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (restoration.restored[~near] == frame[~near]).all()
    assert np.abs(restoration.restored[yellow].astype(int) - 70).max() <= 2
    assert ((restoration.residual > 0) == yellow).all() and ((restoration.mask > 0) == yellow).all()


def test_a_damaged_frame_is_an_error_and_not_a_clean_one(pipeline: Pipeline, tmp_path: Path) -> None:
    path = saved(tmp_path / "damaged.png", crossed())
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(Undecodable):
        pipeline.assess(path)


def test_files_assessed_together_get_the_answers_they_get_alone(
    pipeline: Pipeline, tmp_path: Path, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = saved(tmp_path / "damaged.png", crossed())
    damaged.write_bytes(damaged.read_bytes()[:60])
    cine = next((real_data / "dicom").glob("sonosite*.dcm"))
    marked = [saved(tmp_path / f"{n}.png", np.roll(crossed(), 5 * n, axis=1)) for n in range(6)]
    paths = [*marked[:3], damaged, cine, *marked[3:], tmp_path / "missing.png"]
    monkeypatch.setattr(restoration, "BATCH", {"cpu": 4, "openvino": 4, "cuda": 8})
    together = pipeline.finish(pipeline.begin(paths))
    assert [type(answer).__name__ for answer in together] == [
        "Assessment", "Assessment", "Assessment", "Undecodable", "Assessment",
        "Assessment", "Assessment", "Assessment", "NotFound",
    ]  # fmt: skip
    for path, answer in zip(paths, together, strict=True):
        if isinstance(answer, Assessment):
            alone = pipeline.assess(path)
            assert [frame.number for frame in answer.frames] == [frame.number for frame in alone.frames]
            for one, other in zip(answer.frames, alone.frames, strict=True):
                assert (one.annotations, one.scores) == (other.annotations, other.scores)
                assert (one.mask == other.mask).all()


def test_a_card_without_thresholds_for_every_kind_is_refused(house: Settings, tmp_path: Path) -> None:
    folder = write_weights(tmp_path / "weights")
    card = (folder / "card.toml").read_text().replace("[thresholds.arrow]", "[thresholds.needle]")
    (folder / "card.toml").write_text(card)
    with pytest.raises(NetworkError, match="thresholds"):
        Pipeline(Network(folder))
