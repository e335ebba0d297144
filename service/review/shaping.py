"""Rows of the database as the API's shapes."""

from typing import Any

from service.compliance.facts import place_of
from service.db import studies, tables, worklist
from service.review import schemas

STUDY_FIELDS = (
    "study_instance_uid",
    "patient_name",
    "patient_id",
    "patient_birth_date",
    "patient_sex",
    "accession_number",
    "study_date",
    "description",
    "body_part",
    "laterality",
    "institution",
    "station",
    "operator",
    "first_received_at",
    "last_received_at",
    "settled",
    "conflict",
    "verdict",
    "decision",
    "version",
)
INSTANCE_FIELDS = (
    "sop_instance_uid",
    "sha256",
    "sop_class_uid",
    "transfer_syntax_uid",
    "instance_number",
    "rows",
    "columns",
    "number_of_frames",
    "photometric_interpretation",
    "received_at",
    "conflict",
)


def summary(row: worklist.Row) -> schemas.StudySummary:
    return schemas.StudySummary(
        **_fields(row.study, STUDY_FIELDS),
        instances=row.images,
        missing=[finding(each) for each in row.lacking],
        held_by=row.holder,
    )


def study(
    found: tables.Study,
    verdicts: list[tables.VerdictRecord],
    of_instances: dict[int, tables.VerdictRecord],
    reviews: list[tables.Review],
    held_by: str,
    corrections: list[tables.Correction],
    second_read: tables.DoubleRead | None,
) -> schemas.StudyDetail:
    standing = next((record for record in verdicts if record.superseded_at is None), None)
    series = {each.id: each.series_instance_uid for each in found.series}
    instances = [instance(each, series.get(each.series_id, ""), of_instances.get(each.id)) for each in found.instances]
    return schemas.StudyDetail(
        **_fields(found, STUDY_FIELDS),
        settles_at=found.settles_at,
        held_by=held_by,
        findings=[finding(each) for each in standing.findings] if standing else [],
        verdicts=[verdict(each) for each in verdicts],
        reviews=[review(each) for each in reviews],
        instances=instances,
        annotations=[mark for each in instances for mark in each.annotations],
        corrections=[correction(each) for each in corrections],
        second_read=second_read.state if second_read else None,
    )


def instance(found: tables.Instance, series_instance_uid: str, judged: tables.VerdictRecord | None) -> schemas.Instance:
    analysis = studies.latest(found)
    frames = [frame(each) for each in analysis.frames] if analysis else []
    return schemas.Instance(
        **_fields(found, INSTANCE_FIELDS),
        series_instance_uid=series_instance_uid,
        state=analysis.state if analysis else None,
        attempts=analysis.attempts if analysis else 0,
        reason=analysis.reason if analysis else "",
        cure=analysis.cure if analysis else "",
        network=analysis.network if analysis else "",
        thresholds=analysis.thresholds if analysis else "",
        code_version=analysis.code_version if analysis else "",
        provider=analysis.provider if analysis else "",
        milliseconds=analysis.milliseconds if analysis else {},
        verdict=judged.verdict if judged else None,
        findings=[finding(each) for each in judged.findings] if judged else [],
        frames=frames,
        annotations=[
            schemas.PlacedMark(sop_instance_uid=found.sop_instance_uid, frame=each.frame, **mark.model_dump())
            for each in frames
            for mark in each.annotations
        ],
    )


def frame(found: tables.Frame) -> schemas.Frame:
    return schemas.Frame(
        frame=found.number,
        rows=found.rows,
        columns=found.columns,
        scores=found.scores,
        annotations=[mark(each) for each in found.annotations],
        mask=bool(found.mask_key),
    )


def mark(found: tables.Annotation) -> schemas.Mark:
    return schemas.Mark(
        id=found.id,
        kind=found.kind,
        score=found.score,
        box=[found.x, found.y, found.width, found.height],
        pixels=found.pixels,
        source=found.source,
        found_in=place_of(found.source),
        text=found.text,
        text_score=found.text_score,
    )


def correction(found: tables.Correction) -> schemas.Correction:
    return schemas.Correction(
        id=found.id,
        sop_instance_uid=found.instance.sop_instance_uid,
        sha256=found.instance.sha256,
        frame=found.frame,
        kind=found.kind,
        box=[found.x, found.y, found.width, found.height],
        annotation=found.annotation_id,
        user=found.user.name,
        created_at=found.created_at,
    )


def finding(found: tables.Finding | worklist.Lack) -> schemas.Finding:
    fields = ("requirement", "state", "severity", "sentence", "evidence")
    return schemas.Finding(**_fields(found, fields))


def verdict(found: tables.VerdictRecord) -> schemas.VerdictRecord:
    fields = ("verdict", "network", "thresholds", "rulebook", "code_version", "created_at", "superseded_at")
    return schemas.VerdictRecord(**_fields(found, fields), findings=[finding(each) for each in found.findings])


def review(found: tables.Review) -> schemas.Review:
    fields = ("decision", "reason", "note", "study_version", "created_at")
    return schemas.Review(**_fields(found, fields), user=found.user.name)


def _fields(row: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
