"""A small ward for tests: real DICOM files of pydicom's wheel as studies with analyses, verdicts and findings."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
from pydicom import examples
from pydicom.uid import UID
from sqlalchemy.orm import Session

from service.archive.store import archive
from service.compliance.rulebook import parse
from service.db import rulebooks
from service.db.session import Database
from service.db.tables import (
    Analysis,
    AnalysisState,
    Annotation,
    Finding,
    FindingState,
    Frame,
    Instance,
    Series,
    Severity,
    Study,
    Verdict,
    VerdictRecord,
    now,
)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ROOT = "1.2.826.0.1.3680043.8.498.77."
KINDS = ("body_marker", "caliper", "color_box", "text", "arrow")

Mark = tuple[str, float, int, int, int, int]


@dataclass
class Picture:
    """One image of a study: a DICOM file, and the marks found on its first frame (kind, score, x, y, width, height)."""

    path: Path
    marks: list[Mark] = field(default_factory=list)
    state: AnalysisState = AnalysisState.DONE
    reason: str = ""
    cure: str = ""


def rgb() -> Picture:
    return Picture(examples.get_path("rgb_color"), [("caliper", 0.94, 60, 80, 90, 40)])


def cine() -> Picture:
    return Picture(examples.get_path("ybr_color"))


def wide() -> Picture:
    return Picture(examples.get_path("jpeg2k"), [("color_box", 0.88, 150, 120, 200, 160)])


def admit(
    db: Database,
    number: int,
    verdict: Verdict | None = Verdict.NON_COMPLIANT,
    *,
    pictures: list[Picture] | None = None,
    name: str = "DOE^Jane",
    received: datetime | None = None,
    station: str = "US-03",
    operator: str = "SONO^Grapher",
    institution: str = "North",
    description: str = "Breast, right",
    requirement: str = "breast-body-marker",
    severity: Severity = Severity.MAJOR,
    rulebook: str = "default@1",
) -> str:
    """Put a study into archive and database; returns its Study Instance UID."""
    uid = f"{ROOT}{number}"
    at = received or now() - timedelta(minutes=number)
    with db.begin() as session:
        study = Study(
            study_instance_uid=uid,
            patient_name=name,
            patient_id=f"P{number:05}",
            patient_birth_date=date(1968, 3, 2),
            patient_sex="F",
            accession_number=f"A-{number}",
            study_date=date(2026, 11, 20),
            description=description,
            body_part="BREAST",
            institution=institution,
            station=station,
            operator=operator,
            first_received_at=at,
            last_received_at=at,
            settles_at=at,
            settled=verdict is not None,
            verdict=verdict,
        )
        series = Series(study=study, series_instance_uid=f"{uid}.1", modality="US")
        session.add(series)
        session.flush()
        placed = [
            _store(session, study, series, f"{uid}.1.{place}", place, picture)
            for place, picture in enumerate(pictures or [rgb()], 1)
        ]
        if verdict is not None:
            _judge(session, study, verdict, requirement, severity, rulebook, placed)
        session.flush()
    return uid


def strict(db: Database, least: str = "major") -> str:
    """The label of a rule book that lets nobody override alone what weighs so much."""
    text = f"""
name = "strict"
version = "1"
second_reader_from = "{least}"
[[requirement]]
id = "breast-body-marker"
title = "Body marker"
severity = "{least}"
expect = {{ annotation = "body_marker" }}
"""
    with db.begin() as session:
        return rulebooks.parsed(rulebooks.keep(session, parse(text), "admin")).label


def _store(session: Session, study: Study, series: Series, uid: str, number: int, picture: Picture) -> Instance:
    data_set = pydicom.dcmread(picture.path)
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    out = BytesIO()
    data_set.save_as(out, enforce_file_format=True)
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    key = f"instances/{digest[:2]}/{digest[2:4]}/{digest}.dcm"
    archive().put(key, out.getvalue())
    frames = int(data_set.get("NumberOfFrames") or 1)
    instance = Instance(
        study=study,
        series_id=series.id,
        sop_instance_uid=uid,
        sop_class_uid=str(data_set.SOPClassUID),
        transfer_syntax_uid=str(data_set.file_meta.TransferSyntaxUID),
        sha256=digest,
        size=len(out.getvalue()),
        archive_key=key,
        instance_number=number,
        rows=data_set.Rows,
        columns=data_set.Columns,
        number_of_frames=frames,
        photometric_interpretation=data_set.PhotometricInterpretation,
    )
    session.add(instance)
    done = picture.state is AnalysisState.DONE
    analysis = Analysis(
        instance=instance, state=picture.state, attempts=1, network="test@0", reason=picture.reason, cure=picture.cure
    )
    session.add(analysis)
    session.flush()
    for frame_number in range(1, frames + 1, max(1, frames // 4)) if done else ():
        _frame(session, analysis, instance, frame_number, picture.marks if frame_number == 1 else [])
    return instance


def _frame(session: Session, analysis: Analysis, instance: Instance, number: int, marks: list[Mark]) -> None:
    scores = dict.fromkeys(KINDS, 0.02) | {kind: score for kind, score, *_ in marks}
    frame = Frame(analysis_id=analysis.id, number=number, rows=instance.rows, columns=instance.columns, scores=scores)
    if marks:
        mask = np.zeros((instance.rows, instance.columns), np.uint8)
        for kind, _, x, y, width, height in marks:
            cv2.rectangle(mask, (x, y), (x + width - 1, y + height - 1), KINDS.index(kind) + 1, 2)
        frame.mask_key = f"masks/{analysis.id}/{number}.png"
        archive().put(frame.mask_key, cv2.imencode(".png", mask)[1].tobytes())
    session.add(frame)
    session.flush()
    for kind, score, x, y, width, height in marks:
        session.add(
            Annotation(
                frame_id=frame.id, kind=kind, score=score, x=x, y=y, width=width, height=height, pixels=width + height
            )
        )


def _judge(
    session: Session,
    study: Study,
    verdict: Verdict,
    requirement: str,
    severity: Severity,
    rulebook: str,
    placed: list[Instance],
) -> None:
    record = VerdictRecord(
        study_id=study.id, verdict=verdict, network="test@0", thresholds="t0", rulebook=rulebook, code_version="0"
    )
    session.add(record)
    session.flush()
    states = {
        Verdict.NON_COMPLIANT: FindingState.MISSING,
        Verdict.INDETERMINATE: FindingState.UNCERTAIN,
        Verdict.COMPLIANT: FindingState.MET,
        Verdict.NOT_APPLICABLE: FindingState.NOT_APPLICABLE,
    }
    places = [
        {
            "sop_instance_uid": each.sop_instance_uid,
            "frame": 1,
            "kind": "body_marker",
            "score": 0.03,
            "presence": "absent",
        }
        for each in placed
    ]
    session.add(
        Finding(
            verdict_id=record.id,
            requirement=requirement,
            state=states[verdict],
            severity=severity,
            sentence=f"The body marker is missing on image 1 (rule {requirement}). Draw it and store the image again.",
            evidence={"frames": places, "images": {"considered": len(placed), "missing": len(placed)}},
        )
    )
    session.add(
        Finding(
            verdict_id=record.id,
            requirement="breast-calipers",
            state=FindingState.MET,
            severity=Severity.MAJOR,
            sentence="Calipers are on image 1 (rule breast-calipers).",
            evidence={"frames": []},
        )
    )
