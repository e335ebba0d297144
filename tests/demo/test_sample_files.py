"""The sample studies are real, sendable ultrasound."""

from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UltrasoundImageStorage

from service.demo import sample_files


def test_samples_are_valid_ultrasound_with_made_up_identities(tmp_path: Path) -> None:
    written = [dcmread(path) for path in sample_files(tmp_path) if path.parent == tmp_path]
    assert len(written) == 5
    for instance in written:
        assert instance.SOPClassUID == UltrasoundImageStorage
        assert instance.PatientID.startswith("DEMO-")
        assert instance.pixel_array.shape == (instance.Rows, instance.Columns, 3)
    assert len({instance.StudyInstanceUID for instance in written}) == 3


def test_every_run_makes_new_studies(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first = {dcmread(path).SOPInstanceUID for path in sample_files(tmp_path / "1")[:5]}
    second = {dcmread(path).SOPInstanceUID for path in sample_files(tmp_path / "2")[:5]}
    assert not first & second
