"""What presentation states and reports say of images."""

import warnings
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread, examples
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from service.db import studies, verdicts
from service.db.session import Database
from service.deliver.results import results_of
from service.deliver.structured_report import structured_report
from service.dicom.remarks import Remark, read_remarks
from service.errors import NotDicom, Unreadable
from tests.descriptors import no_descriptor_left
from tests.review import ward

GSPS, SR = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.88.33"


def dataset(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def reference(uid: str, frames: int | list[int] | None = None) -> Dataset:
    made = dataset(ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", ReferencedSOPInstanceUID=uid)
    if frames is not None:
        made.ReferencedFrameNumber = frames
    return made


def written(folder: Path, made: Dataset) -> Path:
    made.SOPInstanceUID = "1.2.3"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(folder / "object.dcm", enforce_file_format=True)
    return folder / "object.dcm"


def state(layer: Dataset, everywhere: str = "") -> Dataset:
    made = dataset(SOPClassUID=GSPS, GraphicAnnotationSequence=[layer])
    if everywhere:
        made.ReferencedSeriesSequence = [dataset(ReferencedImageSequence=[reference(everywhere)])]
    return made


def test_texts_and_measuring_graphics_of_a_presentation_state(tmp_path: Path) -> None:
    text = dataset(
        UnformattedTextValue="LT BREAST 3:00",
        BoundingBoxAnnotationUnits="PIXEL",
        BoundingBoxTopLeftHandCorner=[11.0, 21.0],
        BoundingBoxBottomRightHandCorner=[110.0, 40.0],
    )
    line = dataset(
        GraphicAnnotationUnits="PIXEL",
        GraphicType="POLYLINE",
        NumberOfGraphicPoints=2,
        GraphicData=[5.0, 6.0, 50.0, 60.0],
    )
    outline = dataset(
        GraphicAnnotationUnits="PIXEL", GraphicType="POLYLINE", NumberOfGraphicPoints=5, GraphicData=[1.0] * 10
    )
    arrow = dataset(CompoundGraphicUnits="DISPLAY", CompoundGraphicType="ARROW", GraphicData=[0.1, 0.1, 0.2, 0.2])
    layer = dataset(
        ReferencedImageSequence=[reference("1.9", [2, 3])],
        TextObjectSequence=[text],
        GraphicObjectSequence=[line, outline],
        CompoundGraphicSequence=[arrow],
    )
    found = read_remarks(written(tmp_path, state(layer)))
    one = [remark for remark in found if remark.frame == 2]
    assert {remark.frame for remark in found} == {2, 3} and {remark.sop_instance_uid for remark in found} == {"1.9"}
    assert one == [
        Remark("presentation_state", "1.9", "text", 2, (10, 20, 100, 20), "LT BREAST 3:00"),
        Remark("presentation_state", "1.9", "caliper", 2, (4, 5, 46, 55)),
        Remark("presentation_state", "1.9", "arrow", 2, None),
    ]


def test_a_layer_without_images_is_for_all_of_them(tmp_path: Path) -> None:
    layer = dataset(TextObjectSequence=[dataset(UnformattedTextValue="RT")])
    assert read_remarks(written(tmp_path, state(layer, "1.7"))) == [
        Remark("presentation_state", "1.7", "text", None, None, "RT")
    ]


def number(name: str, value: str, *content: Dataset) -> Dataset:
    code = dataset(CodeValue="1", CodingSchemeDesignator="LN", CodeMeaning=name)
    unit = dataset(CodeValue="mm", CodingSchemeDesignator="UCUM", CodeMeaning="mm")
    measured = dataset(NumericValue=value, MeasurementUnitsCodeSequence=[unit])
    return dataset(
        RelationshipType="CONTAINS",
        ValueType="NUM",
        ConceptNameCodeSequence=[code],
        MeasuredValueSequence=[measured],
        ContentSequence=list(content),
    )


def test_measurements_of_a_report_by_coordinates_by_image_and_by_group(tmp_path: Path) -> None:
    image = dataset(RelationshipType="SELECTED FROM", ValueType="IMAGE", ReferencedSOPSequence=[reference("1.5")])
    line = dataset(
        RelationshipType="INFERRED FROM",
        ValueType="SCOORD",
        GraphicType="POLYLINE",
        GraphicData=[10.0, 10.0, 30.0, 20.0],
        ContentSequence=[image],
    )
    other = dataset(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[reference("1.6", 4)])
    group = dataset(
        RelationshipType="CONTAINS", ValueType="CONTAINER", ContentSequence=[other, number("Volume", "3.5")]
    )
    empty = dataset(RelationshipType="CONTAINS", ValueType="NUM", ConceptNameCodeSequence=[Dataset()])
    report = dataset(
        SOPClassUID=SR, ValueType="CONTAINER", ContentSequence=[number("Length", "21.4", line), group, empty]
    )
    assert read_remarks(written(tmp_path, report)) == [
        Remark("sr", "1.5", "caliper", None, (9, 9, 21, 11), "Length", 21.4, "mm"),
        Remark("sr", "1.6", "caliper", 4, None, "Volume", 3.5, "mm"),
    ]


@pytest.mark.parametrize("lacks", ["NumericValue", "ConceptNameCodeSequence"])
def test_an_item_that_is_not_whole_hides_no_other(tmp_path: Path, lacks: str) -> None:
    odd, whole = number("Odd", "1.0"), number("Length", "21.4")
    del (odd.MeasuredValueSequence[0] if lacks == "NumericValue" else odd)[lacks]
    image = dataset(RelationshipType="CONTAINS", ValueType="IMAGE", ReferencedSOPSequence=[reference("1.5")])
    report = dataset(SOPClassUID=SR, ValueType="CONTAINER", ContentSequence=[image, odd, whole])
    found = [(remark.text, remark.value) for remark in read_remarks(written(tmp_path, report))]
    assert found == ([("Length", 21.4)] if lacks == "NumericValue" else [("", 1.0), ("Length", 21.4)])


def test_our_own_report_does_not_vouch_for_itself(db: Database, tmp_path: Path) -> None:
    uid = ward.admit(db, 1)
    with db.read() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = studies.find(session, uid)
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        report = structured_report(results_of(session, study, standing))
    report.save_as(tmp_path / "own.dcm", enforce_file_format=True)
    assert read_remarks(tmp_path / "own.dcm") == []


def test_an_image_says_nothing_of_others() -> None:
    assert read_remarks(Path(examples.get_path("rgb_color"))) == []


def test_what_cannot_be_read(tmp_path: Path) -> None:
    made = state(dataset(ReferencedImageSequence=[Dataset()], TextObjectSequence=[dataset(UnformattedTextValue="x")]))
    path = written(tmp_path, made)
    assert dcmread(path) is not None
    with pytest.raises(NotDicom):
        read_remarks(path)


def test_a_disk_that_fails_is_not_the_objects_fault(tmp_path: Path) -> None:
    path = written(tmp_path, state(dataset()))
    with no_descriptor_left(), pytest.raises(Unreadable):
        read_remarks(path)
    assert read_remarks(path) == []
    with pytest.raises(FileNotFoundError):
        read_remarks(tmp_path / "gone.dcm")


LARGE = 33 << 20


def test_a_large_object_is_looked_at_where_bulk_makes_it_large(tmp_path: Path) -> None:
    """A bitmap overlay, as a presentation state may carry it, or a private sequence of a vendor's."""
    words = dataset(UnformattedTextValue="RT", AnchorPoint=[1.0, 1.0], AnchorPointAnnotationUnits="DISPLAY")
    made = state(dataset(ReferencedImageSequence=[reference("1.9")], TextObjectSequence=[words]))
    made.add_new(0x60003000, "OW", bytes(LARGE))
    path = written(tmp_path, made)
    assert path.stat().st_size > LARGE
    assert [(remark.sop_instance_uid, remark.text) for remark in read_remarks(path)] == [("1.9", "RT")]


@pytest.mark.parametrize("undefined", [False, True])
def test_what_a_large_object_says_is_not_known(tmp_path: Path, undefined: bool) -> None:
    layer = dataset(ReferencedImageSequence=[reference("1.9")])
    layer.add_new(0x00420011, "OB", bytes(LARGE))
    made = state(layer)
    made["GraphicAnnotationSequence"].is_undefined_length = undefined
    path = written(tmp_path, made)
    with pytest.raises(NotDicom, match="too large to be looked at"):
        read_remarks(path)


def test_nor_what_one_says_that_says_too_much(tmp_path: Path) -> None:
    layer = dataset(
        ReferencedImageSequence=[reference("1.9", list(range(1, 2002)))],
        TextObjectSequence=[dataset(UnformattedTextValue="LT")],
    )
    with pytest.raises(NotDicom, match="more than 2000"):
        read_remarks(written(tmp_path, state(layer)))
