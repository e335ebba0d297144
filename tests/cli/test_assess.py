"""``sonomark assess`` on a folder: every file by itself, and the files of one study together."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom import dcmread, examples
from pydicom.uid import ExplicitVRLittleEndian
from typer.testing import CliRunner

from service.cli import app
from service.settings import Settings, settings
from tests.measurement import write_measurement
from tests.tiny_network import YELLOW, write_weights

run = CliRunner().invoke
RULES = """
name = "mine"
version = "1"
[[requirement]]
id = "measured-once"
title = "Calipers on one image"
at_least = 1
expect = { annotation = "caliper" }
[[requirement]]
id = "report-agrees"
title = "Measured and seen"
agree = [{ measurements = 1 }, { annotation = "caliper", found_in = "pixels" }]
"""


@pytest.fixture
def folder(house: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SONOMARK_NETWORK", str(write_weights(tmp_path / "weights")))
    settings.cache_clear()
    (tmp_path / "rules.toml").write_text(RULES)
    made = tmp_path / "images"
    made.mkdir()
    return made


def still(folder: Path, study: str, number: int, *, calipers: bool = False) -> str:
    """A real ultrasound frame, with a yellow bar, which the test network takes for calipers, or without one."""
    image = dcmread(examples.get_path("rgb_color"))
    pixels = image.pixel_array // 2
    if calipers:
        cv2.rectangle(pixels, (100, 100), (160, 110), YELLOW, -1)
    image.PixelData = np.ascontiguousarray(pixels).tobytes()
    image.StudyInstanceUID, image.SOPInstanceUID = study, f"{study}.{number}"
    image.file_meta.TransferSyntaxUID, image.file_meta.MediaStorageSOPInstanceUID = (
        ExplicitVRLittleEndian,
        f"{study}.{number}",
    )
    image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return f"{study}.{number}"


def assess(folder: Path, *, failures: bool = False) -> list[dict]:
    done = run(app, ["assess", str(folder), "--json", "--rulebook", str(folder.parent / "rules.toml")])
    assert done.exit_code == (3 if failures else 0), done.output
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_one_image_with_calipers_is_enough_for_the_study(folder: Path) -> None:
    still(folder, "1.2.1", 1)
    still(folder, "1.2.1", 2, calipers=True)
    still(folder, "1.2.2", 3)
    lines = {line["sop_instance_uid"]: line for line in assess(folder)}
    assert {uid: line["study"]["verdict"] for uid, line in lines.items()} == {
        "1.2.1.1": "compliant",
        "1.2.1.2": "compliant",
        "1.2.2.3": "non_compliant",
    }
    assert lines["1.2.1.1"]["verdict"] == "not_applicable"  # by itself no rule of a study says anything of it
    assert lines["1.2.2.3"]["study"]["findings"][0]["requirement"] == "measured-once"
    mark = lines["1.2.1.2"]["frames"][0]["annotations"][0]
    assert (mark["kind"], mark["source"], mark["found_in"]) == ("caliper", "network", "pixels")


def test_a_report_speaks_of_the_images_of_its_study(folder: Path) -> None:
    seen = still(folder, "1.2.1", 1, calipers=True)
    write_measurement(folder / "report.dcm", "1.2.1", seen)
    lines = assess(folder)
    assert [line["error"] for line in lines] == [None, None]
    states = {one["requirement"]: one["state"] for one in lines[0]["study"]["findings"]}
    assert states == {"measured-once": "met", "report-agrees": "met"}
    still(folder, "1.2.1", 1)
    states = {one["requirement"]: one["state"] for one in assess(folder)[0]["study"]["findings"]}
    assert states == {"measured-once": "met", "report-agrees": "uncertain"}  # measured, but not seen in the pixels


def test_a_file_that_cannot_be_assessed_leaves_its_study_to_a_person(folder: Path) -> None:
    still(folder, "1.2.1", 1, calipers=True)
    still(folder, "1.2.1", 2)
    short = dcmread(folder / "2.dcm")
    short.Rows *= 2  # more than there are pixels for
    short.save_as(folder / "2.dcm")
    whole, failed = assess(folder, failures=True)
    assert whole["verdict"] == "not_applicable" and failed["verdict"] is None and failed["error"]
    assert whole["study"]["verdict"] == "indeterminate"
    assert whole["study"]["findings"][0]["requirement"] == "image-assessed"


def test_a_report_that_cannot_be_read_makes_nothing_missing(folder: Path) -> None:
    seen = still(folder, "1.2.1", 1)
    report = dcmread(write_measurement(folder / "report.dcm", "1.2.1", seen))
    del report.ContentSequence[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    report.save_as(folder / "report.dcm")
    whole, failed = assess(folder, failures=True)
    assert failed["error"] and whole["study"]["verdict"] == "indeterminate"
    states = {one["requirement"]: one["state"] for one in whole["study"]["findings"]}
    assert states == {"image-assessed": "uncertain", "measured-once": "uncertain", "report-agrees": "uncertain"}


def test_files_without_a_study_stand_alone(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.zeros((200, 200, 3), np.uint8))
    assert [line["study"] for line in assess(folder)] == [None, None]
