"""Headers: what pydicom sees, for every real file; nothing that a peer sends makes it crash."""

import mmap
import struct
import tracemalloc
import zlib
from datetime import date
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from service.dicom.elements import EXPLICIT_LE, MAX_DEPTH, walk
from service.dicom.header import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Header,
    parse_header,
    read_header,
)
from service.dicom.part10 import file_head
from service.errors import NotDicom

UNCOMPRESSED = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN]


def encoded(dataset: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    out = DicomBytesIO()
    out.is_little_endian = syntax != EXPLICIT_VR_BIG_ENDIAN
    out.is_implicit_VR = syntax == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(out, dataset)
    return out.getvalue()


def image(**elements: object) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.3"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.4", "1.2.5"
    dataset.Rows, dataset.Columns = 4, 6
    dataset.PixelData = bytes(24)
    dataset["PixelData"].VR = "OB"
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
@pytest.mark.parametrize(
    ("status", "word"), [(1, "none"), (2, "possible"), (3, "definite"), (4, "unknown"), (0, None), (9, None)]
)
def test_pregnancy_in_words(syntax: str, status: int, word: str | None) -> None:
    header = parse_header(encoded(image(PregnancyStatus=status), syntax), syntax)
    assert header.facts.get("pregnancy") == word


def test_every_real_file_reads_as_pydicom_reads_it(real_data: Path) -> None:
    files = sorted((real_data / "dicom").glob("*.dcm"))
    assert files
    for path in files:
        header, dataset = read_header(path), pydicom.dcmread(path, stop_before_pixels=True)
        assert header.sop_class_uid == dataset.get("SOPClassUID", "")
        assert header.sop_instance_uid == (dataset.get("SOPInstanceUID") or "")
        assert header.study_instance_uid == (dataset.get("StudyInstanceUID") or "")
        assert header.transfer_syntax_uid == dataset.file_meta.TransferSyntaxUID
        assert header.instance["rows"] == dataset.Rows
        assert header.instance["columns"] == dataset.Columns
        assert header.instance["number_of_frames"] == int(dataset.get("NumberOfFrames") or 1)
        assert header.study["patient_id"] == str(dataset.get("PatientID") or "")
        regions = dataset.get("SequenceOfUltrasoundRegions", [])
        assert [(r["data_type"], r["x0"], r["y1"]) for r in header.facts.get("regions", [])] == [
            (r.RegionDataType, r.RegionLocationMinX0, r.RegionLocationMaxY1) for r in regions
        ]


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_columns_and_facts(syntax: str) -> None:
    view = Dataset()
    view.CodeValue, view.CodingSchemeDesignator, view.CodeMeaning = "399162004", "SCT", "cranio-caudal"
    header = parse_header(
        encoded(
            image(
                PatientName="Ångström^Åsa",
                SpecificCharacterSet="ISO_IR 192",
                PatientBirthDate="19701231",
                StudyDate="2026.11.23",
                AccessionNumber="A1",
                StudyDescription="Breast",
                Laterality="L",
                NumberOfFrames="12",
                ImageType=["ORIGINAL", "PRIMARY"],
                UltrasoundColorDataPresent=1,
                BurnedInAnnotation="YES",
                ViewCodeSequence=Sequence([view]),
            ),
            syntax,
        ),
        syntax,
    )
    assert header.study["patient_name"] == "Ångström^Åsa"
    assert header.study["patient_birth_date"] == date(1970, 12, 31)
    assert header.study["study_date"] == date(2026, 11, 23)
    assert header.study["laterality"] == "L"
    assert header.instance["number_of_frames"] == 12
    assert header.facts["image_type"] == ["ORIGINAL", "PRIMARY"]
    assert header.facts["ultrasound_color_data_present"] is True
    assert header.facts["burned_in_annotation"] == "YES"
    assert header.facts["view"] == "cranio-caudal"
    assert header.facts["view_codes"] == [{"value": "399162004", "scheme": "SCT", "meaning": "cranio-caudal"}]
    assert header.series["description"] == ""


def test_no_pixels_means_no_frames() -> None:
    dataset = image()
    del dataset.PixelData
    assert parse_header(encoded(dataset), EXPLICIT_VR_LITTLE_ENDIAN).instance["number_of_frames"] == 0


@pytest.mark.parametrize(
    ("declared", "raw", "shown"),
    [
        (None, "王^小东".encode(), "王^小东"),  # none declared
        ("ISO_IR 100", "王^小东".encode("gbk"), "王^小东".encode("gbk").decode("latin-1")),  # wrong: shown, not lost
        ("GB18030", "王^小东".encode("gb18030"), "王^小东"),
        ("ISO_IR 192", b"\xff\xfe^broken", "ÿþ^broken"),
        ("NO SUCH SET", b"M\xfcller", "Müller"),
        (None, b"<script>alert(1)</script>", "<script>alert(1)</script>"),
        (None, b"../../etc/passwd", "../../etc/passwd"),
        ("\\ISO 2022 IR 87", b"\x1b$B\x00\x1b(B^\x1b", None),
    ],
)
def test_character_sets_show_something_and_never_crash(declared: str | None, raw: bytes, shown: str | None) -> None:
    dataset = image()
    if declared is not None:
        dataset.SpecificCharacterSet = declared.split("\\")
    dataset.add_new(0x00100010, "UN", raw)
    data = encoded(dataset).replace(
        b"\x10\x00\x10\x00UN\x00\x00" + struct.pack("<I", len(raw) + len(raw) % 2),
        b"\x10\x00\x10\x00PN" + struct.pack("<H", len(raw) + len(raw) % 2),
    )
    name = parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN).study["patient_name"]
    assert name == shown if shown is not None else isinstance(name, str)


def test_wrong_vrs_and_numbers_are_taken_as_they_come() -> None:
    dataset = image(InstanceNumber="7")
    del dataset.Rows
    dataset.add_new(0x00280010, "UL", 480)
    assert parse_header(encoded(dataset), EXPLICIT_VR_LITTLE_ENDIAN).instance["rows"] == 480
    data = encoded(image(NumberOfFrames="2")).replace(b"IS\x02\x002 ", b"IS\x02\x00x ")
    assert parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN).instance["number_of_frames"] == 1
    data = encoded(image(NumberOfFrames="2")).replace(b"IS\x02\x002 ", b"IS\x0c\x00999999999999")
    assert parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN).instance["number_of_frames"] == 2**31 - 1


def nested(depth: int, *, item_length: bool) -> bytes:
    """Sequences of undefined length within each other."""
    inner = b""
    for _ in range(depth):
        item = (
            b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
            if item_length
            else b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\x00\x00\x00\x00"
        )
        inner = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    return inner


@pytest.mark.parametrize("item_length", [True, False])
def test_depth_is_limited_without_recursion(item_length: bool) -> None:
    elements, _ = walk(deep := nested(MAX_DEPTH, item_length=item_length), 0, len(deep), EXPLICIT_LE)
    assert list(elements) == [0x00400275]
    for depth in (MAX_DEPTH + 1, 250, 20_000 if not item_length else 2_000):
        data = nested(depth, item_length=item_length)
        with pytest.raises(NotDicom, match="deeper"):
            parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN)


def test_sequences_of_undefined_length_read_like_those_with_one(tmp_path: Path) -> None:
    region = Dataset()
    region.RegionDataType, region.RegionSpatialFormat = 2, 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 10, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 110, 120
    dataset = image(SequenceOfUltrasoundRegions=Sequence([region, region]))
    plain = parse_header(encoded(dataset), EXPLICIT_VR_LITTLE_ENDIAN)
    dataset["SequenceOfUltrasoundRegions"].is_undefined_length = True
    for item in dataset.SequenceOfUltrasoundRegions:
        item.is_undefined_length_sequence_item = True
    assert parse_header(encoded(dataset), EXPLICIT_VR_LITTLE_ENDIAN).facts == plain.facts
    assert plain.facts["regions"][0] == {
        "data_type": 2, "spatial_format": 1, "kind": "color_flow", "format": "2d",
        "x0": 10, "y0": 20, "x1": 110, "y1": 120,
    }  # fmt: skip
    assert len(plain.facts["regions"]) == 2


def test_every_truncation_is_refused() -> None:
    whole = encoded(image(StudyDescription="Carotid", ImageType=["ORIGINAL", "PRIMARY"]))
    parse_header(whole, EXPLICIT_VR_LITTLE_ENDIAN)
    for length in range(len(whole) - 24, len(whole)):
        with pytest.raises(NotDicom):
            parse_header(whole[:length], EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_length_beyond_the_data_is_refused() -> None:
    data = encoded(image())[:-28] + b"OB\x00\x00\xf0\xff\xff\xff"
    with pytest.raises(NotDicom):
        parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN)


def test_deflated_data_has_a_limit() -> None:
    squeezed = zlib.compressobj(9, wbits=-15)
    data = squeezed.compress(encoded(image(PatientID="P1"))) + squeezed.flush()
    assert parse_header(data, DEFLATED).study["patient_id"] == "P1"
    squeezed = zlib.compressobj(9, wbits=-15)
    bomb = squeezed.compress(bytes(200 << 20)) + squeezed.flush()
    assert len(bomb) < 1 << 20
    with pytest.raises(NotDicom, match="larger than"):
        parse_header(bomb, DEFLATED)


def test_files_without_prefix_and_files_that_are_none(tmp_path: Path) -> None:
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(encoded(image(), IMPLICIT_VR_LITTLE_ENDIAN))
    assert read_header(bare).transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    for content in (b"", b"\x89PNG\r\n\x1a\n" + bytes(200), bytes(4096), b"<html></html>"):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(NotDicom, match="other"):
            read_header(tmp_path / "other")


def test_the_head_of_a_file_is_what_pydicom_reads() -> None:
    head = file_head("1.2.840.10008.5.1.4.1.1.6.1", "1.2.3", EXPLICIT_VR_LITTLE_ENDIAN, "US01")
    dataset = pydicom.dcmread(BytesIO(head + encoded(image(PatientID="P"))))
    assert head[:128] == bytes(128)
    assert dataset.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert dataset.file_meta.SourceApplicationEntityTitle == "US01"
    assert dataset.file_meta.FileMetaInformationGroupLength == len(head) - 128 - 4 - 12
    assert dataset.PatientID == "P"


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(name=TEXTS, description=TEXTS, number=st.integers(-(2**31) + 1, 2**31 - 1), syntax=st.sampled_from(UNCOMPRESSED))
def test_values_survive_every_encoding(name: str, description: str, number: int, syntax: str) -> None:
    header = parse_header(
        encoded(image(PatientID=name, StudyDescription=description, InstanceNumber=str(number)), syntax), syntax
    )
    assert header.study["patient_id"] == name.strip()
    assert header.study["description"] == description.strip()
    assert header.instance["instance_number"] == number


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=600), syntax=st.sampled_from([*UNCOMPRESSED, DEFLATED]))
def test_random_bytes_are_refused_or_read(data: bytes, syntax: str) -> None:
    _refused_or_read(data, syntax)


@settings(max_examples=400, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    syntax=st.sampled_from(UNCOMPRESSED),
)
def test_damaged_headers_are_refused_or_read(flips: list[tuple[int, int]], syntax: str) -> None:
    region = Dataset()
    region.RegionDataType, region.RegionLocationMinX0 = 1, 10
    dataset = image(
        SequenceOfUltrasoundRegions=Sequence([region]), PatientName="A^B", SpecificCharacterSet="ISO_IR 192"
    )
    data = bytearray(encoded(dataset, syntax))
    for position, value in flips:
        data[position % len(data)] = value
    _refused_or_read(bytes(data), syntax)


def _refused_or_read(data: bytes, syntax: str) -> None:
    try:
        assert isinstance(parse_header(data, syntax), Header)
    except NotDicom as error:
        assert error.what


@pytest.mark.parametrize(
    ("elements", "borne"),
    [
        ({}, []),
        ({"PatientName": "CANARY^Name", "PatientID": ""}, ["patient_name"]),
        ({"PatientID": "CANARY", "AccessionNumber": "CANARY"}, ["patient_id", "accession_number"]),
    ],
)
def test_an_image_says_which_identifiers_it_bears_and_not_what_they_are(
    elements: dict[str, str], borne: list[str]
) -> None:
    facts = parse_header(encoded(image(**elements)), EXPLICIT_VR_LITTLE_ENDIAN).facts
    assert facts["identifiers"] == borne and "CANARY" not in repr(facts)


def test_a_value_of_hundreds_of_megabytes_is_not_taken_into_memory(tmp_path: Path) -> None:
    """A peer that announces a patient's name of 300 MB once made the receiver three times as large."""
    size, file = 300 << 20, tmp_path / "long"
    with file.open("wb") as out:
        for number, value in ((0x0016, b"1.2"), (0x0018, b"1.2.3.4")):
            out.write(struct.pack("<HH2sH", 0x0008, number, b"UI", 8) + value.ljust(8, b"\0"))
        out.write(struct.pack("<HH2sHI", 0x0010, 0x0010, b"UT", 0, size))
        out.truncate(out.tell() + size)
        out.seek(0, 2)
        items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 200_000
        out.write(struct.pack("<HH2sHI", 0x0032, 0x1064, b"SQ", 0, len(items)) + items)
    with file.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tracemalloc.start()
        header = parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20
    assert len(header.facts.get("procedure_codes", [])) <= 1000


def test_a_data_set_of_empty_elements_alone_is_given_up() -> None:
    """A gigabyte of them once took minutes, in which the other associations got half of the processor."""
    for element in (bytes(8), struct.pack("<HH2sH", 0x0008, 0x0050, b"SH", 0)):
        with pytest.raises(NotDicom, match="more than"):
            parse_header(
                struct.pack("<HH2sH", 0x0008, 0x0016, b"UI", 0) + element * (40 << 20), EXPLICIT_VR_LITTLE_ENDIAN
            )
