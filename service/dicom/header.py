"""What Sonomark keeps of an instance's header: columns of the tables, and facts that rules may ask of it.

Pixels are never touched, and no value a modality wrote makes this fail: what cannot be read is empty.
"""

import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from service.dicom.character_sets import encodings_of
from service.dicom.elements import (
    EXPLICIT_BE,
    EXPLICIT_LE,
    IMPLICIT_LE,
    LONG_VRS,
    PIXEL_GROUP,
    Buffer,
    Element,
    Encoding,
    walk,
)
from service.dicom.regions import SEQUENCE_OF_ULTRASOUND_REGIONS, regions
from service.dicom.values import Values
from service.errors import NotDicom

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

PREAMBLE = 128
FIRST_TAG = 0x00020000  # below are commands (PS3.7); File Meta Information does stray into real data sets
INFLATED_AT_MOST = 64 * 1024 * 1024  # of a deflated data set; a bomb gets no further
LARGEST_INTEGER = 2**31 - 1  # what the database's integer columns hold


class Header(NamedTuple):
    """One instance's header. ``study``, ``series`` and ``instance`` are columns of those tables by name."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    study: dict[str, Any]
    series: dict[str, Any]
    instance: dict[str, Any]
    facts: dict[str, Any]


def read_header(path: Path) -> Header:
    """The header of a DICOM file.

    Raises:
        NotDicom: the file is no DICOM file, is cut off before its pixels end, or nests sequences too deep.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise NotDicom(f"{path} is empty.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                start, transfer_syntax = _meta(data)
                return parse_header(data, transfer_syntax, start)
            except NotDicom as error:
                raise NotDicom(f"{path} is no readable DICOM file: {error.what}", cure=error.cure) from error


def elements_of(path: Path) -> dict[int, Element]:
    """Where the top-level elements of a DICOM file lie, by tag; of a deflated one, where they lie when it is inflated.

    Raises:
        NotDicom: the file is no DICOM file, or cannot be walked through.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, transfer_syntax = _meta(data)
        if transfer_syntax != DEFLATED:
            return walk(data, start, len(data), encoding_of(transfer_syntax))[0]
        inflated = _inflated(data[start:])
        return walk(inflated, 0, len(inflated), EXPLICIT_LE)[0]


def data_set_position(head: bytes) -> int:
    """Position of a file's data set, by its beginning, which must reach beyond the File Meta Information.

    Raises:
        NotDicom: it is no DICOM file's.
    """
    return _meta(head)[0]


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What the File Meta Information says of the data set that begins at ``position``."""

    position: int
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str


def file_meta(head: bytes) -> FileMeta:
    """The File Meta Information of a file's beginning, which must reach beyond it (PS3.10 section 7.1).

    Raises:
        NotDicom: there is none, or it does not say what the file holds.
    """
    start = PREAMBLE + 4 if head[PREAMBLE : PREAMBLE + 4] == b"DICM" else 0
    if head[start : start + 2] != b"\x02\x00":  # some clients leave preamble and prefix out
        raise NotDicom("It does not begin with File Meta Information.")
    elements, position = walk(head, start, len(head), EXPLICIT_LE, last_group=0x0002)
    said = Values(head, elements)
    found = FileMeta(position, said.text(0x00020010), said.text(0x00020002), said.text(0x00020003))
    if not found.transfer_syntax_uid or not found.sop_class_uid or not found.sop_instance_uid:
        raise NotDicom("Its File Meta Information is not complete.")
    return found


def parse_header(
    data: Buffer, transfer_syntax: str, start: int = 0, stop: int | None = None, character_set: str = ""
) -> Header:
    """The header of the data set ``data[start:stop]``, encoded in ``transfer_syntax``.

    ``character_set`` is a Defined Term of Specific Character Set (PS3.3 section C.12.1.1.2) that is believed in place
    of the one that the data set declares.

    Raises:
        NotDicom: the bytes are no data set in that syntax.
    """
    stop = len(data) if stop is None else stop
    if transfer_syntax == DEFLATED:
        data, start = _inflated(bytes(data[start:stop])), 0
        stop = len(data)
    elements, _ = walk(data, start, stop, encoding_of(transfer_syntax))
    if not elements:
        raise NotDicom("There is not one data element in it.")
    if next(iter(elements)) < FIRST_TAG:
        raise NotDicom("It does not begin like a data set.")
    encodings = encodings_of(character_set.encode()) if character_set else None
    return _header(Values(data, elements, encodings), elements, transfer_syntax)


def encoding_of(transfer_syntax: str) -> Encoding:
    """How the elements of a data set in this transfer syntax are written (PS3.5 section 10 and annex A)."""
    if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        return IMPLICIT_LE
    return EXPLICIT_BE if transfer_syntax == EXPLICIT_VR_BIG_ENDIAN else EXPLICIT_LE


def _meta(data: Buffer) -> tuple[int, str]:
    """Where the data set of a file starts, and its transfer syntax (PS3.10 section 7.1)."""
    if data[PREAMBLE : PREAMBLE + 4] == b"DICM":
        elements, start = walk(data, PREAMBLE + 4, len(data), EXPLICIT_LE, last_group=0x0002)
        return start, Values(data, elements).text(0x00020010) or _guessed(data, start)
    # Files of the days before PS3.10, and bare data sets: the group of the first element gives them away.
    if data[:2] == b"\x02\x00":
        elements, start = walk(data, 0, len(data), EXPLICIT_LE, last_group=0x0002)
        return start, Values(data, elements).text(0x00020010) or _guessed(data, start)
    if data[:2] == b"\x08\x00":
        return 0, _guessed(data, 0)
    if data[:2] == b"\x00\x08":
        return 0, EXPLICIT_VR_BIG_ENDIAN
    raise NotDicom("It has no DICOM prefix and does not begin like a data set.")


def _guessed(data: Buffer, start: int) -> str:
    vr = bytes(data[start + 4 : start + 6])
    explicit = vr in LONG_VRS or (vr.isalpha() and vr.isupper())
    return EXPLICIT_VR_LITTLE_ENDIAN if explicit else IMPLICIT_VR_LITTLE_ENDIAN


def _inflated(data: bytes) -> bytes:
    try:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = inflater.decompress(data, INFLATED_AT_MOST)
    except zlib.error as error:
        raise NotDicom("Its deflated data set cannot be inflated.") from error
    if inflater.unconsumed_tail:
        raise NotDicom(f"Its deflated data set is larger than {INFLATED_AT_MOST >> 20} MB.")
    return inflated


def _header(of: Values, elements: dict[int, Element], transfer_syntax: str) -> Header:
    body_part = of.text(0x00180015) or _meaning(of, 0x00082218)
    laterality = of.text(0x00200062) or of.text(0x00200060)
    procedure = of.text(0x00321060) or _meaning(of, 0x00081032) or _meaning(of, 0x00321064)
    study = {
        "patient_name": of.text(0x00100010),
        "patient_id": of.text(0x00100020),
        "patient_birth_date": of.date(0x00100030),
        "patient_sex": of.text(0x00100040),
        "accession_number": of.text(0x00080050),
        "study_date": of.date(0x00080020),
        "description": of.text(0x00081030),
        "procedure": procedure,
        "body_part": body_part,
        "laterality": laterality,
        "institution": of.text(0x00080080),
        "station": of.text(0x00081010),
        "operator": of.text(0x00081070),
    }
    return Header(
        sop_class_uid=of.text(0x00080016),
        sop_instance_uid=of.text(0x00080018),
        study_instance_uid=of.text(0x0020000D),
        series_instance_uid=of.text(0x0020000E),
        transfer_syntax_uid=transfer_syntax,
        study=study,
        series={
            "modality": of.text(0x00080060),
            "description": of.text(0x0008103E),
            "body_part": body_part,
            "laterality": of.text(0x00200060),
        },
        instance={
            "instance_number": _column(of.integer(0x00200013)),
            "rows": _column(of.integer(0x00280010)) or 0,
            "columns": _column(of.integer(0x00280011)) or 0,
            "number_of_frames": _frames(of, elements),
            "photometric_interpretation": of.text(0x00280004),
        },
        facts=_facts(of, elements, study),
    )


# Pregnancy Status (0010,21C0), PS3.3 section C.2.4; words of which none contains another.
PREGNANCY = {1: "none", 2: "possible", 3: "definite", 4: "unknown"}


# Which of them an image bears is a fact that rules ask for; what they say is the study's, and nobody else's.
IDENTIFIERS = ("patient_name", "patient_id", "accession_number")


def _facts(of: Values, elements: dict[int, Element], study: dict[str, Any]) -> dict[str, Any]:
    """Everything a rule may ask of the header, empty values left out."""
    facts = {name: read(of, tag) for name, (tag, read) in _FACTS.items() if tag in elements}
    facts["procedure_codes"] = [code for tag in (0x00081032, 0x00321064) if tag in elements for code in _codes(of, tag)]
    facts["view"] = of.text(0x0008212A) or _meaning(of, 0x00540220) or of.text(0x00185101)
    said = {name: value for name, value in facts.items() if value not in ("", None, [])}
    said["identifiers"] = [name for name in IDENTIFIERS if study[name]]  # none of them says something too
    return said


def _codes(of: Values, tag: int) -> list[dict[str, str]]:
    """A code sequence as ``{value, scheme, meaning}`` (PS3.3 section 8)."""
    return [
        {"value": item.text(0x00080100), "scheme": item.text(0x00080102), "meaning": item.text(0x00080104)}
        for item in of.items(tag)
    ]


def _meaning(of: Values, tag: int) -> str:
    return next((item.text(0x00080104) for item in of.items(tag)), "") if tag in of else ""


def _frames(of: Values, elements: dict[int, Element]) -> int:
    """Number of frames; 0 says that there are no pixels."""
    if not any(tag >> 16 == PIXEL_GROUP for tag in elements):
        return 0
    return max(1, _column(of.integer(0x00280008)) or 1)


def _column(number: int | None) -> int | None:
    return None if number is None else max(-LARGEST_INTEGER, min(number, LARGEST_INTEGER))


def _flagged(of: Values, tag: int) -> bool | None:
    number = of.integer(tag)
    return None if number is None else bool(number)


def _pregnancy(of: Values, tag: int) -> str:
    return PREGNANCY.get(of.integer(tag) or 0, "")


# Facts that one element tells, and how it is read. Most images have a few of these elements: the others cost nothing.
_FACTS: dict[str, tuple[int, Callable[[Values, int], Any]]] = {
    "modality": (0x00080060, Values.text),
    "manufacturer": (0x00080070, Values.text),
    "model": (0x00081090, Values.text),
    "station": (0x00081010, Values.text),
    "institution": (0x00080080, Values.text),
    "department": (0x00081040, Values.text),
    "patient_sex": (0x00100040, Values.text),
    "patient_age": (0x00101010, Values.text),
    "pregnancy": (0x001021C0, _pregnancy),
    "study_description": (0x00081030, Values.text),
    "series_description": (0x0008103E, Values.text),
    "protocol": (0x00181030, Values.text),
    "procedure": (0x00321060, Values.text),
    "body_part": (0x00180015, Values.text),
    "anatomic_regions": (0x00082218, _codes),
    "laterality": (0x00200060, Values.text),
    "image_laterality": (0x00200062, Values.text),
    "patient_orientation": (0x00200020, Values.texts),
    "view_codes": (0x00540220, _codes),
    "stage": (0x00082120, Values.text),
    "image_type": (0x00080008, Values.texts),
    "image_comments": (0x00204000, Values.text),
    "content_date": (0x00080023, Values.text),
    "content_time": (0x00080033, Values.text),
    "acquisition_datetime": (0x0008002A, Values.text),
    "transducer": (0x00185010, Values.texts),
    "mechanical_index": (0x00185022, Values.number),
    "bone_thermal_index": (0x00185024, Values.number),
    "cranial_thermal_index": (0x00185026, Values.number),
    "soft_tissue_thermal_index": (0x00185027, Values.number),
    "frame_time_ms": (0x00181063, Values.number),
    "ultrasound_color_data_present": (0x00280014, _flagged),
    "burned_in_annotation": (0x00280301, Values.text),
    "lossy_compression": (0x00282110, Values.text),
    "samples_per_pixel": (0x00280002, Values.integer),
    "bits_allocated": (0x00280100, Values.integer),
    "regions": (SEQUENCE_OF_ULTRASOUND_REGIONS, lambda of, _: regions(of)),
}
