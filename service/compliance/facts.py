"""What a rule may ask of an image and of a study: header facts and what the network saw. No clock, no database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from typing import Any, Literal, get_args

from service.dicom.remarks import Remark, Source

Kind = Literal["body_marker", "caliper", "color_box", "text", "arrow"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# DICOM PS3.3 C.8.5.5.1.2, Region Data Type (0018,6014), as dicom/regions.py calls them
Region = Literal["tissue", "color_flow", "pw_doppler", "cw_doppler", "gray_bar", "color_bar"]

Field = Literal[
    "exam",
    "body_part",
    "study_description",
    "series_description",
    "protocol",
    "procedure",
    "view",
    "laterality",
    "image_type",
    "modality",
    "station",
    "institution",
    "department",
    "manufacturer",
    "model",
    "ae_title",
    "operator",
    "patient_sex",
    "pregnancy",
]
# What the header may record of an examination, asked for by name alone: what it says is nobody's business here.
Record = Literal["patient_name", "patient_id", "accession_number", "date", "time", "mechanical_index", "thermal_index"]
_RECORDED_AS: Mapping[Record, tuple[str, ...]] = {
    "patient_name": ("patient_name",),
    "patient_id": ("patient_id",),
    "accession_number": ("accession_number",),
    "date": ("study_date", "content_date", "acquisition_datetime"),
    "time": ("content_time", "acquisition_datetime"),
    "mechanical_index": ("mechanical_index",),
    "thermal_index": ("soft_tissue_thermal_index", "bone_thermal_index", "cranial_thermal_index"),
}
_IDENTIFIERS = {"patient_name", "patient_id", "accession_number"}
# What says which examination this is; vendors fill any one of them, so a rule usually asks "exam".
EXAM_FIELDS: tuple[Field, ...] = (
    "body_part",
    "study_description",
    "series_description",
    "protocol",
    "procedure",
    "view",
    "image_type",
)
# Where an annotation was found; a person who draws one and the network speak of the pixels.
Place = Literal["pixels", "overlay", "presentation_state", "sr"]
_PLACES: Mapping[str, Place] = {
    "overlay": "overlay",
    "presentation_state": "presentation_state",
    "sr": "sr",
}

# What the objects of which remarks are read can say of an image: see dicom/remarks.py.
_SAID_BY: Mapping[Source, tuple[Kind, ...]] = {"presentation_state": ("text", "caliper", "arrow"), "sr": ("caliper",)}

_BY_SCORE = frozenset({"network"})

Words = Mapping[str, tuple[str, ...]]

# A kind without a band in the network's card: only scores beyond doubt count.
WIDE_BAND = (0.2, 0.8)


class Presence(StrEnum):
    """Whether a frame carries a kind of annotation, by its score and the network's two thresholds."""

    PRESENT = "present"  # score at or above the upper threshold
    UNCERTAIN = "uncertain"  # between the two
    ABSENT = "absent"  # below the lower one
    UNKNOWN = "unknown"  # nobody looked for this kind


@dataclass(frozen=True, slots=True)
class Mark:
    """One annotation on a frame; ``box`` is x, y, width, height in pixels, ``text`` what was read in it."""

    kind: str
    score: float
    box: tuple[int, int, int, int]
    source: str = "network"  # or: person, overlay, presentation_state, sr
    text: str = ""

    @property
    def found_in(self) -> Place:
        return place_of(self.source)


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """One assessed frame, counted from 1; ``scores`` in [0, 1] for every kind that was looked for."""

    number: int
    scores: Mapping[str, float]
    annotations: tuple[Mark, ...] = ()
    text_read: bool = False  # burned-in text was read, so that silence means there is none

    def presence(
        self, kind: str, bands: Mapping[str, tuple[float, float]], found_in: tuple[Place, ...] = ()
    ) -> Presence:
        """Whether this frame carries ``kind``: what a person, an overlay or an SR drew counts without a score.

        ``found_in`` asks for some places only; the score speaks of the pixels, unless all it saw is an overlay.
        """
        sources = {mark.source for mark in self.annotations if mark.kind == kind}
        if sources - _BY_SCORE and any(not found_in or place_of(source) in found_in for source in sources - _BY_SCORE):
            return Presence.PRESENT
        if found_in and ("pixels" not in found_in or (sources and "network" not in sources)):
            return Presence.ABSENT
        if kind not in self.scores:
            return Presence.UNKNOWN
        absent, present = bands.get(kind, WIDE_BAND)
        score = self.scores[kind]
        if score >= present:
            return Presence.PRESENT
        return Presence.UNCERTAIN if score >= absent else Presence.ABSENT


@dataclass(frozen=True, slots=True)
class HeaderRegion:
    """An ultrasound region that the scanner declares: its data type and its corners in pixels."""

    data_type: str
    box: tuple[int, int, int, int] | None = None  # x0, y0, x1, y1


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """One image, still or cine. Not ``assessed`` means that a step failed, and ``reason`` says which."""

    sop_instance_uid: str
    number: int | None = None  # Instance Number (0020,0013)
    words: Words = field(default_factory=dict)  # header text by field, as written
    regions: tuple[HeaderRegion, ...] | None = None  # of (0018,6011); None: the header has no such sequence
    number_of_frames: int = 1
    measurements: int | None = None  # in an SR of the study that refer to this image; None: no SR
    says: Source | None = None  # no image, but what it says of others is read
    unread: frozenset[Source] = frozenset()  # what of these its study holds that could not be read
    frames: tuple[FrameFacts, ...] = ()
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # kind → (absent, present)
    assessed: bool = True
    reason: str = ""
    cure: str = ""
    conflict: bool = False  # its SOP Instance UID also came with other bytes
    received: str = ""  # ISO time and digest: which of two versions is the newer
    study_date: date | None = None
    patient_age: float | None = None  # years
    # What was worked out once, because a hundred rules ask it again: see truth.py and evidence.py.
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_cine(self) -> bool:
        return self.number_of_frames > 1

    def may_be_said(self, kind: str, found_in: tuple[Place, ...] = ()) -> bool:
        """Whether an object that could not be read may say that this image carries ``kind``."""
        return any(kind in _SAID_BY[source] and (not found_in or source in found_in) for source in self.unread)

    @property
    def place(self) -> tuple[bool, int, str, str]:
        """Sorting key: by number as on the console, images without one last."""
        return (self.number is None, self.number or 0, self.sop_instance_uid, self.received)


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """All images of one study, in any order."""

    study_instance_uid: str
    instances: tuple[InstanceFacts, ...]

    def newest_versions(self) -> tuple[InstanceFacts, ...]:
        """One image per SOP Instance UID, in reading order: of several versions the newest counts."""
        newest: dict[str, InstanceFacts] = {}
        for instance in sorted(self.instances, key=lambda image: image.received):
            newest[instance.sop_instance_uid] = instance
        return tuple(sorted(newest.values(), key=lambda image: image.place))


def place_of(source: str) -> Place:
    """Where a mark of this source was found."""
    return _PLACES.get(source, "pixels")


def with_remarks(frames: tuple[FrameFacts, ...], said: Sequence[Remark]) -> tuple[FrameFacts, ...]:
    """The frames with what other objects say of them; of a cine's frame that was not assessed, the nearest one."""
    if not frames or not said:
        return frames
    added: dict[int, list[Mark]] = {}
    for remark in said:
        # What is measured has a name; only what is written on the image is its text.
        written = remark.text if remark.kind == "text" else ""
        mark = Mark(remark.kind, 1.0, remark.box or (0, 0, 0, 0), remark.source, written)
        for frame in frames if remark.frame is None else (_nearest(frames, remark.frame),):
            added.setdefault(frame.number, []).append(mark)
    return tuple(
        replace(frame, annotations=(*frame.annotations, *added.get(frame.number, ()))) if added else frame
        for frame in frames
    )


def measurements_of(said: Sequence[Remark]) -> int:
    """How many measurements of a report refer to the image of which this is said."""
    return sum(remark.value is not None for remark in said)


def _nearest(frames: Sequence[FrameFacts], number: int) -> FrameFacts:
    return min(frames, key=lambda frame: abs(frame.number - number))


def words_of(header: Mapping[str, Any], **known: str | Iterable[str]) -> Words:
    """Header text by field, from what ``dicom/header.py`` keeps of an instance and from ``known`` columns.

    Keys that are no `Field` are left out, and so are empty values.
    """
    gathered: dict[str, list[str]] = {}
    for source in (header, known):
        for key, value in source.items():
            name = _FIELD_OF.get(key)
            if name:
                gathered.setdefault(name, []).extend(_texts(value))
    words: dict[str, tuple[str, ...]] = {name: tuple(dict.fromkeys(found)) for name, found in gathered.items()}
    words["exam"] = tuple(dict.fromkeys(text for name in EXAM_FIELDS for text in words.get(name, ())))
    return {name: found for name, found in words.items() if found}


def where_silent(header: Mapping[str, Any], **known: str) -> dict[str, str]:
    """Of what the first image of a study or series said, and its columns keep, that of which this header says nothing.

    Others of a study may be of another part, side or machine: what they say themselves goes before.
    """
    return {
        name: said
        for name, said in known.items()
        if not any(_texts(header.get(key)) for key in (name, *_ALSO_TOLD_BY.get(name, ())))
    }


def records_of(header: Mapping[str, Any], known: Mapping[str, Any]) -> Words:
    """Which of the `Record`s hold a value in what ``dicom/header.py`` keeps, or else in ``known`` of the study.

    They stand among the words as "records", so that images that differ in nothing else share them too.
    """
    told = {name for name, value in header.items() if value is not None and value != ""}
    of_study = {name for name, value in known.items() if value is not None and value is not False and value != ""}
    if "identifiers" in header:  # as every header received since this version says of itself
        of_study = of_study - _IDENTIFIERS | set(header["identifiers"])
    told |= of_study
    return {"records": tuple(record for record, names in _RECORDED_AS.items() if not told.isdisjoint(names))}


def regions_of(header: Mapping[str, Any]) -> tuple[HeaderRegion, ...] | None:
    """The header's ultrasound regions, or None when it has no such sequence."""
    regions = header.get("regions")
    return tuple(_region(region) for region in regions) if regions else None


def age_in_years(born: date | None, on: date | None) -> float | None:
    """A patient's age at the study, None when either date is missing or they contradict each other."""
    if born is None or on is None:
        return None
    return round((on - born).days / 365.25, 2) if on >= born else None


def age_of(written: str) -> float | None:
    """Years in a DICOM age string (VR AS: "045Y", "010M", "003W", "021D"), None when it is none."""
    digits, unit = written[:3], written[3:4]
    if len(written) != 4 or not digits.isdigit() or unit not in _PER_YEAR:
        return None
    return round(int(digits) / _PER_YEAR[unit], 2)


def _region(region: Mapping[str, Any]) -> HeaderRegion:
    x0, y0, x1, y1 = (region.get(name) for name in ("x0", "y0", "x1", "y1"))
    whole = isinstance(x0, int) and isinstance(y0, int) and isinstance(x1, int) and isinstance(y1, int)
    return HeaderRegion(str(region.get("kind", "other")), (x0, y0, x1, y1) if whole else None)  # type: ignore[arg-type]


def _texts(value: Any) -> list[str]:
    """The words in a header value: a string, a code {value, meaning}, or a list of these."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, Mapping):
        return [text for part in ("value", "meaning") for text in _texts(value.get(part, ""))]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []


_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}

_ALSO_TOLD_BY = {"body_part": ("anatomic_regions",), "laterality": ("image_laterality",)}

_FIELD_OF: Mapping[str, Field] = {
    **{name: name for name in get_args(Field) if name != "exam"},
    "description": "study_description",
    "procedure_codes": "procedure",
    "view_codes": "view",
    "stage": "view",
    "anatomic_regions": "body_part",
    "image_laterality": "laterality",
    "calling_ae_title": "ae_title",
}
