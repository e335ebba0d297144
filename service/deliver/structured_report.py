"""The verdict as a structured report: TID 1500 (PS3.16), as IHE AI Results (AIR) asks, in a Comprehensive SR.

One measurement group (TID 1501) for the verdict and one for each requirement, with the images it looked at; one planar
region (TID 1410) for each annotation, with its box and its score.
"""

from __future__ import annotations

from collections.abc import Iterator

import highdicom as hd
import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, generate_uid

from service.compliance.facts import KINDS
from service.db.tables import Finding
from service.deliver.results import MANUFACTURER, MODEL, SCHEME, Results, SeenImage, SeenMark, stamped
from service.settings import settings

SERIES_NUMBER = 9301
Group = sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations

_TITLES: dict[str, str] = {kind: kind.replace("_", " ").capitalize() for kind in KINDS}
_SCORE = hd.sr.CodedConcept("score", SCHEME, "Presence score")
_VERDICT = hd.sr.CodedConcept("verdict", SCHEME, "Compliance verdict")
_REQUIREMENT = hd.sr.CodedConcept("requirement", SCHEME, "Requirement")
_STATE = hd.sr.CodedConcept("state", SCHEME, "State of the requirement")
_SOURCE = hd.sr.CodedConcept("found-in", SCHEME, "Where the annotation was found")


def structured_report(results: Results) -> Dataset:
    """The report of a study's verdict; it belongs to the study and refers to its images."""
    evidence = [image.header for image in results.images]
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer(results)),
        procedure_reported=_ULTRASOUND,
        imaging_measurements=[*_whole(results), *_regions(results)],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=[header for header in evidence if "Rows" in header and "Columns" in header] or None,
    )
    report = sr.ComprehensiveSR(
        evidence=evidence,
        content=content,
        series_instance_uid=results.uid("series", "sr"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=results.uid("sr"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=results.code_version,
        is_complete=True,
        is_final=False,  # no person has verified it
        series_description="Annotation compliance",
    )
    return stamped(report, results, results.judged_at)


def observer(results: Results) -> sr.ObserverContext:
    """Who looked: this device, by name and version."""
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=_device(),
            name="Sonomark",
            manufacturer_name=MANUFACTURER,
            model_name=MODEL,
            serial_number=results.code_version,
        ),
    )


def _device() -> UID:
    """The same in every report of this house (PS3.16 TID 1004)."""
    return generate_uid(entropy_srcs=["device", MODEL, settings().ae_title, settings().public_url])


def algorithm(results: Results) -> sr.AlgorithmIdentification:
    """What looked: the network's weights and the rule book."""
    network = results.network or "none"
    return sr.AlgorithmIdentification("Sonomark", results.code_version, [f"network {network}", results.rulebook])


_ULTRASOUND = hd.sr.CodedConcept("16310003", "SCT", "Ultrasonography")


def _whole(results: Results) -> Iterator[Group]:
    """The verdict, and each requirement with the images behind it."""
    yield sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(results, "verdict"),
        finding_type=_VERDICT,
        algorithm_id=algorithm(results),
        qualitative_evaluations=[_said(_VERDICT, results.verdict)],
    )
    by_uid = {image.uid: image for image in results.images}
    for finding in results.findings:
        sources = [by_uid[uid] for uid in _looked_at(finding) if uid in by_uid]
        yield sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(results, finding.requirement),
            finding_type=hd.sr.CodedConcept(finding.requirement, SCHEME, finding.requirement[:64]),
            finding_category=_REQUIREMENT,
            algorithm_id=algorithm(results),
            qualitative_evaluations=[_said(_STATE, finding.state.value)],
            source_images=[
                sr.SourceImageForMeasurementGroup(image.header.SOPClassUID, image.header.SOPInstanceUID)
                for image in sources
            ]
            or None,
        )


def _regions(results: Results) -> Iterator[Group]:
    for image in results.images:
        for number, mark in enumerate(image.marks, start=1):
            yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                tracking_identifier=_tracking(results, f"{mark.kind} {mark.frame}.{number}", image.uid),
                referenced_region=_region(image, mark),
                finding_type=hd.sr.CodedConcept(mark.kind, SCHEME, _TITLES.get(mark.kind, mark.kind)),
                algorithm_id=algorithm(results),
                measurements=[sr.Measurement(_SCORE, round(mark.score, 4), codes.UCUM.NoUnits)],
                qualitative_evaluations=[_said(_SOURCE, mark.source)],
            )


def _region(image: SeenImage, mark: SeenMark) -> sr.ImageRegion:
    """The box as a closed polyline of pixel corners (PS3.3 C.18.6.1.2), within the image."""
    rows, columns = int(image.header.get("Rows") or 0), int(image.header.get("Columns") or 0)
    x, y, width, height = mark.box
    left, top = max(0, x), max(0, y)
    right, bottom = min(x + width, columns or x + width), min(y + height, rows or y + height)
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom], [left, top]], np.float64)
    source = sr.SourceImageForRegion(
        image.header.SOPClassUID,
        image.header.SOPInstanceUID,
        referenced_frame_numbers=[mark.frame] if image.frames > 1 else None,
    )
    return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, corners, source)


def _tracking(results: Results, name: str, *more: str) -> sr.TrackingIdentifier:
    return sr.TrackingIdentifier(uid=results.uid("tracking", name, *more), identifier=name)


def _said(name: hd.sr.CodedConcept, value: str) -> sr.QualitativeEvaluation:
    said = hd.sr.CodedConcept(value, SCHEME, value.replace("_", " ")[:64])
    return sr.QualitativeEvaluation(name, said)


def _looked_at(finding: Finding) -> list[str]:
    frames = finding.evidence.get("frames", ()) if finding.evidence else ()
    return list(dict.fromkeys(str(frame["sop_instance_uid"]) for frame in frames))
