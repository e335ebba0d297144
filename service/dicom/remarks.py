"""What other objects of a study say of its images: presentation states draw and write on them, structured reports
measure on them. Read from the object's own file; where it says nothing about an image, nothing is found.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from service.dicom.header import elements_of
from service.dicom.reading import is_fault, unreadable
from service.errors import NotDicom

Source = Literal["presentation_state", "sr"]
Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the frame

_STORAGE = "1.2.840.10008.5.1.4.1.1."
PRESENTATION_STATES = (f"{_STORAGE}11.1", f"{_STORAGE}11.2")
REPORTS = tuple(f"{_STORAGE}88.{number}" for number in (22, 33, 34))
_WANTED = ["SOPClassUID", "ReferencedSeriesSequence", "GraphicAnnotationSequence", "ContentSequence"]
_LARGEST = 32 * 1024 * 1024  # bytes that are parsed; real ones have a few kilobytes
_BULK = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"}  # curves, overlays, icons: passed over, however large they are
_DEEPEST = 60  # nested content items
_MOST = 2000  # remarks of one object
_BY_HAND = "Look at it in the PACS, and decide by hand about what it may say."
_IMAGE_LIBRARY = "111028"  # PS3.16 TID 1600: sizes of images, which nobody measured
# What pydicom makes of content that contradicts itself.
_CONTRADICTIONS = (InvalidDicomError, AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError)
_OWN_SCHEME = "99SONOMARK"  # our own reports come back from the PACS and must not vouch for themselves

# PS3.3 C.10.5.1.3, Compound Graphic Type: what measures and what points.
_COMPOUND = {"RULER": "caliper", "RANGELINE": "caliper", "CROSSHAIR": "caliper", "ARROW": "arrow"}


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing said of an image, or of one of its frames, counted from 1; without a box it lies nowhere."""

    source: Source
    sop_instance_uid: str
    kind: str
    frame: int | None = None
    box: Box | None = None
    text: str = ""  # what is written there, or what a measurement is called
    value: float | None = None
    unit: str = ""


def source_of(sop_class_uid: str) -> Source | None:
    """As what objects of this class can say something of images; None for those that say nothing."""
    if sop_class_uid in PRESENTATION_STATES:
        return "presentation_state"
    return "sr" if sop_class_uid in REPORTS else None


def is_read(sop_class_uid: str) -> bool:
    """Whether objects of this class can say something of images."""
    return source_of(sop_class_uid) is not None


def read_remarks(path: Path) -> list[Remark]:
    """Everything that a presentation state or a report says of images; nothing for any other object.

    Raises:
        NotDicom: its content cannot be read, or is too much to be looked at: what it says is not known then.
        Unreadable: the disk is to blame. FileNotFoundError: it is not there.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote what stands in the header
            if path.stat().st_size > _LARGEST:
                _require_little_besides_bulk(path)
            of = dcmread(path, stop_before_pixels=True, force=True, specific_tags=_WANTED)
            found = list(islice(_remarks(of), _MOST + 1))
    except FileNotFoundError:
        raise
    except (OSError, *_CONTRADICTIONS) as error:
        if isinstance(error, OSError) and is_fault(error):
            raise unreadable(path, error) from error
        raise NotDicom("The object's content cannot be read.", cure="Look at what the sender made of it.") from error
    if len(found) > _MOST:
        raise NotDicom(f"The object says more than {_MOST} things of images.", cure=_BY_HAND)
    return found


def _require_little_besides_bulk(path: Path) -> None:
    """Sequences take many times their size in memory; elements of bulk are not even read."""
    octets = sum(element.stop - element.start for element in elements_of(path).values() if element.vr not in _BULK)
    if octets > _LARGEST:
        raise NotDicom(f"The object's content is too large to be looked at ({octets >> 20} MB).", cure=_BY_HAND)


def _remarks(of: Dataset) -> Iterator[Remark]:
    sop_class = str(of.get("SOPClassUID", ""))
    if sop_class in PRESENTATION_STATES:
        yield from _drawn(of)
    elif sop_class in REPORTS:
        yield from _measured(of, [], 0)


def _drawn(state: Dataset) -> Iterator[Remark]:
    """Graphics and texts of a presentation state (PS3.3 C.10.5)."""
    everywhere = [image for series in _items(state, "ReferencedSeriesSequence") for image in _images_of(series)]
    for layer in _items(state, "GraphicAnnotationSequence"):
        for uid, frame in _images_of(layer) or everywhere:
            for text in _items(layer, "TextObjectSequence"):
                words = str(text.get("UnformattedTextValue", "")).strip()
                if words:
                    yield Remark("presentation_state", uid, "text", frame, _text_box(text), words)
            for graphic in _items(layer, "GraphicObjectSequence"):
                if _measures(graphic):
                    box = _around(graphic.get("GraphicData"), graphic.get("GraphicAnnotationUnits"))
                    yield Remark("presentation_state", uid, "caliper", frame, box)
            for compound in _items(layer, "CompoundGraphicSequence"):
                kind = _COMPOUND.get(str(compound.get("CompoundGraphicType", "")))
                if kind:
                    box = _around(compound.get("GraphicData"), compound.get("CompoundGraphicUnits"))
                    yield Remark("presentation_state", uid, kind, frame, box)


def _measures(graphic: Dataset) -> bool:
    """A point, or a line between two points: what a measurement leaves; an outline of many points is none."""
    kind, points = str(graphic.get("GraphicType", "")), int(graphic.get("NumberOfGraphicPoints") or 0)
    return kind == "POINT" or (kind == "POLYLINE" and points == 2)


def _text_box(text: Dataset) -> Box | None:
    corners = [*(text.get("BoundingBoxTopLeftHandCorner") or ()), *(text.get("BoundingBoxBottomRightHandCorner") or ())]
    if corners:
        return _around(corners, text.get("BoundingBoxAnnotationUnits"))
    return _around(text.get("AnchorPoint"), text.get("AnchorPointAnnotationUnits"))


def _measured(item: Dataset, inherited: list[Any], depth: int) -> Iterator[Remark]:
    """Measurements of a report (PS3.3 C.17.3) that refer to images, by themselves or by the group they stand in."""
    if depth > _DEEPEST:
        raise NotDicom(f"The object's content is nested deeper than {_DEEPEST} items.", cure=_BY_HAND)
    content = _items(item, "ContentSequence")
    places = [place for part in content for place in _places(part)]
    for part in content:
        if _code(part) == _IMAGE_LIBRARY:
            continue
        if part.get("ValueType") == "NUM" and _scheme(part) != _OWN_SCHEME:
            own = [place for child in _items(part, "ContentSequence") for place in _places(child)]
            yield from _of_number(part, own or places or inherited)
        yield from _measured(part, places or inherited, depth + 1)


def _of_number(item: Dataset, places: Sequence[Any]) -> Iterator[Remark]:
    """Nothing of an item without a value, which is how a report says that something could not be measured."""
    name = _of_name(item, "CodeMeaning")
    measured = _items(item, "MeasuredValueSequence")
    written = measured[0].get("NumericValue") if measured else None
    if written in (None, ""):
        return
    value = float(written)
    units = _items(measured[0], "MeasurementUnitsCodeSequence")
    unit = str(units[0].get("CodeValue", "")) if units else ""
    for uid, frame, box in places:
        yield Remark("sr", uid, "caliper", frame, box, name, value, unit)


def _places(item: Dataset) -> list[tuple[str, int | None, Box | None]]:
    """The images an item points at, and where on them."""
    if item.get("ValueType") == "IMAGE":
        return [(uid, frame, None) for uid, frame in _references(item, "ReferencedSOPSequence")]
    if item.get("ValueType") == "SCOORD":
        box = _around(item.get("GraphicData"), "PIXEL")
        images = [place for child in _items(item, "ContentSequence") for place in _places(child)]
        return [(uid, frame, box) for uid, frame, _ in images]
    return []


def _images_of(item: Dataset) -> list[tuple[str, int | None]]:
    return _references(item, "ReferencedImageSequence")


def _references(item: Dataset, sequence: str) -> list[tuple[str, int | None]]:
    """SOP Instance UIDs with their frames; without frames the whole image."""
    found: list[tuple[str, int | None]] = []
    for reference in _items(item, sequence):
        frames = reference.get("ReferencedFrameNumber")
        numbers = [None] if frames in (None, "") else [int(n) for n in _listed(frames)]
        found += [(str(reference.ReferencedSOPInstanceUID), number) for number in numbers]
    return found


def _around(points: Any, units: Any) -> Box | None:
    """The box around points in pixels (the upper left one is 1, 1); None where they are shares of a display."""
    values = [float(value) for value in _listed(points)] if points is not None else []
    if str(units or "PIXEL") != "PIXEL" or len(values) < 2:
        return None
    across, down = values[0::2], values[1::2]
    left, top = max(0, floor(min(across)) - 1), max(0, floor(min(down)) - 1)
    return left, top, max(1, ceil(max(across)) - left), max(1, ceil(max(down)) - top)


def _scheme(item: Dataset) -> str:
    return _of_name(item, "CodingSchemeDesignator")


def _code(item: Dataset) -> str:
    return _of_name(item, "CodeValue")


def _of_name(item: Dataset, part: str) -> str:
    names = _items(item, "ConceptNameCodeSequence")
    return str(names[0].get(part, "")) if names else ""


def _items(of: Dataset, sequence: str) -> Sequence[Dataset]:
    return of.get(sequence) or ()


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
