"""Who a frame is of, as its file's name says it: no patient stands on both sides of a split."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.dataset import clean_frames, split


def written(path: Path, seed: int) -> Path:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, (64, 64)).astype(np.float32), (0, 0), 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.normalize(noise, None, 0, 180, cv2.NORM_MINMAX, cv2.CV_8U))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "patient{:02}_{:03}",
        "P{}_{}",
        "S{:02}_frame{}",
        "sub{:02}_t{:02}",
        "sub-{:02}_{:02}",
        "patient_{:02}_{:03}",
        "ward_p{}_step_{}",
        "pat{}.{}",
        "subject{} {}",
    ],
)
def test_a_patient_whom_the_files_name_stands_on_one_side(tmp_path: Path, name: str) -> None:
    files = {
        written(tmp_path / f"{name.format(patient, frame)}.png", 10 * patient + frame): patient
        for patient in range(1, 7)
        for frame in range(1, 4)
    }
    frames = clean_frames(tmp_path)
    groups = {(files[frame.path], frame.group) for frame in frames}
    assert len(groups) == len(set(dict(groups).values())) == 6, "a group for each patient"
    parts = split(frames, (), 0.5, 3)
    sides = [{files[frame.path] for frame in side} for side in (parts.training, parts.validation)]
    assert all(sides) and not sides[0] & sides[1]


def test_a_patients_number_counts_in_every_folder_unless_a_listing_names_sources(tmp_path: Path) -> None:
    for number, file in enumerate(("monday/P12_1", "tuesday/P12_2", "tuesday/p12_3", "tuesday/P13_1")):
        written(tmp_path / f"{file}.png", number)
    groups = {frame.path.stem: frame.group for frame in clean_frames(tmp_path)}
    assert groups["P12_1"] == groups["P12_2"] == groups["p12_3"] != groups["P13_1"]
    (tmp_path / "frames.csv").write_text("file,source\nmonday/P12_1.png,one\ntuesday/P12_2.png,other\n")
    assert [frame.group for frame in clean_frames(tmp_path)] == ["one:P12", "other:P12"]


def test_files_that_name_nobody_are_groups_of_their_own(tmp_path: Path) -> None:
    for number, name in enumerate(("tissue_1", "tissue_2", "step_7", "us1_12")):
        written(tmp_path / f"{name}.png", number)
    assert len({frame.group for frame in clean_frames(tmp_path)}) == 4
