"""What a study's verdict rests on, gathered for the objects that carry it to other systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from highdicom import PatientSexValues, SpecificCharacterSetValues
from pydicom import Dataset, dcmread
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import DA, TM
from sqlalchemy.orm import Session

from service import __version__
from service.archive.store import archive
from service.db import days, retention, studies
from service.db.tables import Analysis, Finding, FindingState, Instance, Study, VerdictRecord

Mask = npt.NDArray[np.uint8]  # (rows, columns): 0 for background, i + 1 for the i-th kind

MANUFACTURER, MODEL, SCHEME = "Sonomark", "Sonomark", "99SONOMARK"
# Attributes of PS3.3 C.7.1.1, C.7.2.1 and C.7.3.1 that must be there, if empty, and that modalities leave out.
_MUST_BE_THERE = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID",
)  # fmt: skip
_DATES: dict[str, Callable[[Any], object]] = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_NAMES = ("PatientName", "ReferringPhysicianName")
_SEXES = {each.value for each in PatientSexValues}
_UNICODE = "ISO_IR 192"
_STAND_ALONE = {each.value for each in SpecificCharacterSetValues if not each.value.startswith("ISO 2022")}


@dataclass(frozen=True, slots=True)
class SeenMark:
    """An annotation on a frame; the box is x, y, width, height in pixels."""

    frame: int
    kind: str
    score: float
    box: tuple[int, int, int, int]
    source: str


@dataclass(frozen=True)
class SeenImage:
    """An image's header as its sender wrote it, without pixels, and what was found on it."""

    header: Dataset
    marks: tuple[SeenMark, ...] = ()
    mask_keys: dict[int, str] = field(default_factory=dict)  # by frame, in the archive

    @property
    def uid(self) -> str:
        return str(self.header.SOPInstanceUID)

    @property
    def frames(self) -> int:
        return int(self.header.get("NumberOfFrames") or 1)

    def masks(self) -> dict[int, Mask]:
        """The typed masks by frame."""
        return {number: _mask(archive().get(key)) for number, key in self.mask_keys.items()}


@dataclass(frozen=True)
class Results:
    """A study's verdict with its findings, images and versions."""

    study_instance_uid: str
    verdict: str
    judged_at: datetime
    rulebook: str
    network: str
    code_version: str
    findings: tuple[Finding, ...]
    images: tuple[SeenImage, ...]

    def uid(self, *what: str) -> UID:
        """A UID that is the same whenever the same thing is made of the same verdict: a repeat is no second object."""
        return generate_uid(entropy_srcs=[self.study_instance_uid, self.judged_at.isoformat(), self.rulebook, *what])

    def lacking(self) -> list[str]:
        """SOP Instance UIDs of the images on which a requirement is missing, by the evidence of its finding."""
        frames = [
            frame
            for finding in self.findings
            if finding.state is FindingState.MISSING
            for frame in (finding.evidence or {}).get("frames", ())
        ]
        return list(dict.fromkeys(str(frame["sop_instance_uid"]) for frame in frames))


def results_of(session: Session, study: Study, verdict: VerdictRecord) -> Results:
    """Everything about the study as this verdict knew it, but images whose bytes the retention policy has released.

    Images whose bytes are lost raise StorageError.
    """
    found = studies.find(session, study.study_instance_uid)
    newest = {instance.sop_instance_uid: instance for instance in sorted(found.instances, key=lambda one: one.id)}
    released = retention.released_of(session, study.id)
    kept = (instance for instance in newest.values() if instance.id not in released)
    images = sorted(kept, key=lambda one: (one.instance_number or 0, one.id))
    return Results(
        study_instance_uid=study.study_instance_uid,
        verdict=verdict.verdict.value,
        judged_at=verdict.created_at,
        rulebook=verdict.rulebook,
        network=verdict.network,
        code_version=verdict.code_version or __version__,
        findings=tuple(verdict.findings),
        images=tuple(_image(instance) for instance in images if instance.number_of_frames),
    )


def header_of(instance: Instance) -> Dataset:
    """The instance's header with what its own standard requires, so that objects can be derived from it.

    What its modality wrote against the standard, and nobody could write into another object, is left empty.
    """
    header = dcmread(archive().path(instance.archive_key), stop_before_pixels=True, force=True)
    _leave_out_unreadable(header)
    _in_one_character_set(header)
    for name in _MUST_BE_THERE:
        if name not in header:
            setattr(header, name, "")
    for name, kind in _DATES.items():
        if not _is(kind, header[name].value):
            header[name].value = ""
    for name in _NAMES:
        if header[name].VM > 1:
            header[name].value = header[name].value[0]
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""
    header.setdefault("Modality", "OT")
    header.setdefault("SOPClassUID", UID(instance.sop_class_uid))
    header.setdefault("SOPInstanceUID", UID(instance.sop_instance_uid))
    return header


def stamped(made: Dataset, results: Results, at: datetime) -> Dataset:
    """The object with the verdict's own time, so that making it again gives the same object.

    Its offset from UTC is said to hold for the study's date and time too (PS3.3 C.12.1.1.8), so it is the one in which
    the images have them: as they declare it, or else the hospital's.
    """
    there = at.astimezone(_zone(results.images[0].header))
    day, time = f"{there:%Y%m%d}", f"{there:%H%M%S}"
    for name in ("InstanceCreationDate", "ContentDate", "SeriesDate"):
        if name in made:
            setattr(made, name, day)
    for name in ("InstanceCreationTime", "ContentTime", "SeriesTime"):
        if name in made:
            setattr(made, name, time)
    made.TimezoneOffsetFromUTC = f"{there:%z}"[:5]
    return made


def _zone(header: Dataset) -> tzinfo:
    try:
        declared = datetime.strptime(str(header.get("TimezoneOffsetFromUTC", "")).strip(), "%z").tzinfo
    except ValueError:
        declared = None
    return declared or days.zone()


def _image(instance: Instance) -> SeenImage:
    analysis: Analysis | None = studies.latest(instance)
    frames: Sequence[Any] = analysis.frames if analysis else ()
    marks = tuple(
        SeenMark(frame.number, mark.kind, mark.score, (mark.x, mark.y, mark.width, mark.height), mark.source)
        for frame in frames
        for mark in frame.annotations
    )
    return SeenImage(header_of(instance), marks, {frame.number: frame.mask_key for frame in frames if frame.mask_key})


def _leave_out_unreadable(header: Dataset) -> None:
    """Decode every element, and remove those that are none."""
    for tag in list(header.keys()):
        try:
            element = header[tag]
            for item in element.value if element.VR == "SQ" else ():
                _leave_out_unreadable(item)
        except Exception:  # noqa: BLE001 - whatever a modality wrote there
            del header[tag]


def _in_one_character_set(header: Dataset) -> None:
    """The decoded header in the character set that it declares, or, where that takes code extensions or is unknown, in
    Unicode: the library writes none of these."""
    declared = header.get("SpecificCharacterSet")
    if declared is not None and (not isinstance(declared, str) or declared not in _STAND_ALONE):
        header.SpecificCharacterSet = _UNICODE


def _is(kind: Callable[[Any], object], value: Any) -> bool:
    try:
        kind(value)
    except (ValueError, TypeError):
        return False
    return True


def _mask(png: bytes) -> Mask:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE), np.uint8)
