"""What an evaluation measured, and what it did not: its report says both, and its pictures are all there."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from models import evaluate
from models.corruption import corrupt
from models.dataset import clean_frames, read_frame
from models.served import Weights, reduced
from tests.models.tiny_weights import write_labels, write_speckle, write_tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return Weights(write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny"))


def test_drawings_that_are_too_large_are_counted(weights: Weights, tmp_path: Path) -> None:
    """A scanner's screen round a large frame is larger than the network takes: half of them went unsaid."""
    write_speckle(tmp_path / "frames", 2, side=120)
    weights.graph.max_side = 130
    frames, report = clean_frames(tmp_path / "frames"), evaluate.Report("tiny")
    rng, small = np.random.default_rng(5), 0
    for _ in range(12):
        frame = reduced(read_frame(frames[int(rng.integers(len(frames)))].path), 130)
        small += max(corrupt(frame, rng, held_out=True).labels.shape) <= 130
    assert 0 < small < 12
    evaluate.synthetic_frames(weights, frames, 12, 5, report)
    report.write(tmp_path / "out")
    assert f"{small} of 12 drawings; the others are larger than the network takes, 130 pixels" in report.markdown()
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["drawings"] == {"drawn": 12, "measured": small}
    folder = write_tiny_weights(tmp_path / "weights")
    evaluate.record(report, folder)
    assert tomllib.loads((folder / "card.toml").read_text())["metrics"]["drawings"] == told["drawings"]


def test_drawings_that_all_count_need_no_words(weights: Weights, tmp_path: Path) -> None:
    weights.graph.max_side = 1024
    report = evaluate.Report("tiny")
    evaluate.synthetic_frames(weights, clean_frames(write_speckle(tmp_path / "frames", 2)), 3, 5, report)
    assert "3 drawings." in report.markdown() and "others" not in report.markdown()


def test_every_picture_is_there_and_none_of_an_earlier_evaluation(weights: Weights, tmp_path: Path) -> None:
    """Exports name files alike in every folder."""
    for folder in ("a", "b"):
        write_speckle(tmp_path / folder, 2)
    files = ["a/tissue_0a.png", "b/tissue_0a.png", "b/tissue_1a.png"]
    write_labels(tmp_path, files)
    pictures = tmp_path / "out" / "pictures"
    (pictures / "wrong").mkdir(parents=True)
    (pictures / "wrong" / "of_before.png").write_bytes(b"")
    (pictures / "wrong" / "notes.txt").write_text("mine")
    evaluate.real_frames(weights, tmp_path / "labels.csv", evaluate.Report("tiny"), pictures)
    shown = sorted(path.name for path in pictures.rglob("*.png"))
    assert shown == ["1_tissue_0a.png", "2_tissue_0a.png", "tissue_1a.png"]
    assert (pictures / "wrong" / "notes.txt").exists()


def test_a_picture_that_cannot_be_written_is_told(weights: Weights, tmp_path: Path) -> None:
    write_labels(write_speckle(tmp_path, 1), ["tissue_0a.png"])
    for folder in ("right", "wrong"):
        (tmp_path / "pictures" / folder / "tissue_0a.png").mkdir(parents=True)  # in the way
    with pytest.raises(OSError, match="tissue_0a"):
        evaluate.real_frames(weights, tmp_path / "labels.csv", evaluate.Report("tiny"), tmp_path / "pictures")
