"""The objects that carry a verdict to other systems, held against the standard by dciodvfy and dsrdump."""

import shutil
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from highdicom import seg
from pydicom import Dataset, dcmread, dcmwrite

from service.db import studies, verdicts
from service.db.session import Database
from service.db.tables import now
from service.deliver.rejection import rejection_note
from service.deliver.results import Results, results_of
from service.deliver.segmentation import segmentations
from service.deliver.structured_report import structured_report
from tests.review import ward

CINE = "1.2.840.10008.5.1.4.1.1.3.1"


@pytest.fixture
def results(db: Database) -> Results:
    """A study of a still, a cine and a larger still; calipers on the first two, a colour box on the last."""
    marked = ward.cine()
    marked.marks = [("caliper", 0.91, 20, 30, 40, 40), ("body_marker", 0.8, 200, 180, 30, 30)]
    uid = ward.admit(db, 1, pictures=[ward.rgb(), marked, ward.wide()])
    with db.read() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = studies.find(session, uid)
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        return results_of(session, study, standing)


@pytest.fixture(autouse=True)
def quiet() -> None:
    warnings.simplefilter("ignore")


def results_with(db: Database, folder: Path, **header: object) -> Results:
    """A study of one still in whose header a modality wrote this."""
    still = ward.rgb()
    data_set = dcmread(still.path)
    for name, value in header.items():
        setattr(data_set, name, value)
        if value is None:
            delattr(data_set, name)
    still.path = written(data_set, folder, "still.dcm")
    uid = ward.admit(db, 1, pictures=[still])
    with db.read() as session:
        study = studies.find(session, uid)
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        return results_of(session, study, standing)


def written(made: Dataset, folder: Path, name: str = "made.dcm") -> Path:
    path = folder / name
    dcmwrite(path, made, enforce_file_format=True)
    return path


def complaints(path: Path) -> list[str]:
    """What dciodvfy finds wrong; its warnings speak of the source's own header or of our private codes."""
    if not shutil.which("dciodvfy"):
        pytest.skip("dicom3tools is not installed")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", timeout=60)
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def items(of: Dataset) -> list[Dataset]:
    """Every content item of a report, the root's first."""
    found = []
    for item in of.get("ContentSequence", ()):
        found += [item, *items(item)]
    return found


def test_the_report_is_valid_and_says_verdict_findings_and_regions(results: Results, tmp_path: Path) -> None:
    path = written(structured_report(results), tmp_path)
    assert complaints(path) == []
    report = dcmread(path)
    assert report.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert report.VerificationFlag == "UNVERIFIED" and report.PreliminaryFlag == "PRELIMINARY"
    codes = [item.ConceptCodeSequence[0] for item in items(report) if item.ValueType == "CODE"]
    said = {code.get("CodeValue") or code.get("LongCodeValue") for code in codes}
    assert {"non_compliant", "breast-body-marker", "missing", "met", "caliper", "color_box", "body_marker"} <= said
    regions = [item for item in items(report) if item.ValueType == "SCOORD"]
    assert len(regions) == 4
    assert [round(value) for value in regions[0].GraphicData] == [60, 80, 150, 80, 150, 120, 60, 120, 60, 80]
    numbers = [item.MeasuredValueSequence[0].NumericValue for item in items(report) if item.ValueType == "NUM"]
    assert 0.94 in [float(number) for number in numbers]
    references = [item.ReferencedSOPSequence[0] for item in items(report) if item.ValueType == "IMAGE"]
    cine = [one for one in references if one.ReferencedSOPClassUID == CINE and "ReferencedFrameNumber" in one]
    assert {one.ReferencedFrameNumber for one in cine} == {1}


def test_dcmtk_reads_the_report(results: Results, tmp_path: Path) -> None:
    if not shutil.which("dsrdump"):
        pytest.skip("dcmtk is not installed")
    path = written(structured_report(results), tmp_path)
    done = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not [line for line in done.stderr.splitlines() if line.startswith("E:")]
    assert "Imaging Measurement Report" in done.stdout and "breast-body-marker" in done.stdout


def test_each_marked_frame_has_its_segmentation(results: Results, tmp_path: Path) -> None:
    made = list(segmentations(results))
    assert len(made) == 3 and len({one.SOPInstanceUID for one in made}) == 3
    for number, one in enumerate(made):
        path = written(one, tmp_path, f"{number}.dcm")
        assert complaints(path) == []
        back = seg.segread(path)
        assert back.SegmentationType == "BINARY"
    cine = seg.segread(tmp_path / "1.dcm")
    assert [segment.SegmentLabel for segment in cine.SegmentSequence] == ["Body marker", "Caliper"]
    source = cine.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert (source.ReferencedSOPClassUID, source.ReferencedFrameNumber) == (CINE, 1)
    mask = next(iter(results.images[1].masks().values()))
    assert np.array_equal(cine.pixel_array[1].astype(bool), mask == 2)


def test_the_rejection_note_names_the_images_that_lack_something(results: Results, tmp_path: Path) -> None:
    rejected = results.lacking()[:1]
    note = rejection_note(results, rejected, "Body marker", now())
    path = written(note, tmp_path)
    assert complaints(path) == []
    title = dcmread(path).ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113001", "DCM")
    images = [item.ReferencedSOPSequence[0] for item in items(note) if item.ValueType == "IMAGE"]
    assert [image.ReferencedSOPInstanceUID for image in images] == rejected
    modifier = next(item for item in items(note) if item.ConceptNameCodeSequence[0].CodeValue == "113011")
    assert modifier.RelationshipType == "HAS CONCEPT MOD"


def test_every_report_is_by_the_same_device(results: Results) -> None:
    of_another = replace(results, study_instance_uid="1.2.3", judged_at=now(), network="other@1")
    devices = {
        item.UID
        for each in (results, of_another)
        for item in items(structured_report(each))
        if item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == "121012"
    }
    assert len(devices) == 1


def test_making_it_again_makes_no_second_object(results: Results) -> None:
    once, again = ([structured_report(results), *segmentations(results)] for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert one.SOPInstanceUID == other.SOPInstanceUID and one.SeriesInstanceUID == other.SeriesInstanceUID
        assert (one.ContentDate, one.ContentTime) == (other.ContentDate, other.ContentTime)


@pytest.mark.parametrize(
    "header",
    [
        {"PatientSex": "U"},
        {"PatientBirthDate": "unknown", "StudyDate": "2026-01-31", "StudyTime": "10:11"},
        {"PatientName": ["DOE^Ann", "ROE^Ann"]},
        {"SpecificCharacterSet": ""},
        {"SpecificCharacterSet": "ISO IR 100"},
        {"SpecificCharacterSet": "ISO 2022 IR 100"},
        {"Modality": None},
    ],
    ids=lambda header: ", ".join(header),
)
def test_a_header_against_the_standard_goes_out_with_the_rest(
    db: Database, tmp_path: Path, header: dict[str, object]
) -> None:
    results = results_with(db, tmp_path, **header)
    for made in (structured_report(results), *segmentations(results), rejection_note(results, [], "Retake", now())):
        back = dcmread(written(made, tmp_path))
        assert back.PatientID == results.images[0].header.PatientID


@pytest.mark.parametrize(
    ("declared", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["ISO 2022 IR 100", "ISO 2022 IR 126"], "Müller^Δίκη"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_go_out_as_they_came_in(db: Database, tmp_path: Path, declared: object, name: str) -> None:
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = "1", "99X", name.split("=")[-1]
    given = {"SpecificCharacterSet": declared, "PatientName": name, "ProcedureCodeSequence": [coded]}
    results = results_with(db, tmp_path, **given)
    for made in (structured_report(results), *segmentations(results), rejection_note(results, [], "Retake", now())):
        path = written(made, tmp_path)
        assert complaints(path) == []
        back = dcmread(path)
        assert back.PatientName == name
        assert all(each.CodeMeaning == coded.CodeMeaning for each in back.get("ProcedureCodeSequence", ()))


@pytest.mark.parametrize(("declared", "offset"), [(None, "+0530"), ("-0300", "-0300"), ("local", "+0530")])
def test_the_studys_time_means_what_it_means_in_the_images(
    db: Database, tmp_path: Path, hospital_in: Callable[[str], None], declared: str | None, offset: str
) -> None:
    """An object's offset from UTC holds for the date and time of the study too, which are the modality's local ones."""
    hospital_in("Asia/Kolkata")
    results = results_with(db, tmp_path, StudyTime="101500", TimezoneOffsetFromUTC=declared)
    at = results.judged_at.astimezone(datetime.strptime(offset, "%z").tzinfo)
    for made in (
        structured_report(results),
        *segmentations(results),
        rejection_note(results, [], "", results.judged_at),
    ):
        back = dcmread(written(made, tmp_path))
        assert (back.StudyTime, back.TimezoneOffsetFromUTC) == ("101500", offset)
        assert (back.ContentDate, back.ContentTime) == (f"{at:%Y%m%d}", f"{at:%H%M%S}")


def test_an_image_without_rows_keeps_no_report_back(db: Database, tmp_path: Path) -> None:
    results = results_with(db, tmp_path)
    del results.images[0].header.Rows
    report = dcmread(written(structured_report(results), tmp_path))
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert [one.ReferencedSOPInstanceUID for one in evidence.ReferencedSOPSequence] == [results.images[0].uid]
