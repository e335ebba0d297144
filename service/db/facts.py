"""What the compliance room asks about studies, read in a handful of queries whatever their number."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, select
from sqlalchemy.orm import Session

from service.compliance.facts import (
    FrameFacts,
    InstanceFacts,
    Mark,
    StudyFacts,
    Words,
    age_in_years,
    age_of,
    measurements_of,
    records_of,
    regions_of,
    where_silent,
    with_remarks,
    words_of,
)
from service.db import remarks
from service.db.analyses import Seen
from service.db.days import day_of
from service.db.session import past_mapper
from service.db.tables import Analysis, AnalysisState, Annotation, Frame, Instance, Series, Study
from service.dicom.remarks import Source, source_of

_Frames = Mapping[int, tuple[FrameFacts, ...]]  # by analysis
_STANDING = (Analysis.state == AnalysisState.DONE, ~Analysis.superseded)
IN_FLIGHT = (AnalysisState.QUEUED, AnalysisState.CLAIMED, None)


@dataclass(frozen=True, slots=True)
class Judgeable:
    """An instance as rules see it, and by which network and thresholds it was seen."""

    instance_id: int
    facts: InstanceFacts
    network: str
    thresholds: str
    in_flight: bool


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study's instances as rules see them."""

    study_id: int
    facts: StudyFacts
    instances: tuple[Judgeable, ...]

    @property
    def in_flight(self) -> bool:
        """Whether an image still waits for its assessment."""
        return any(instance.in_flight for instance in self.instances)

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(sorted({instance.network for instance in self.instances if instance.network}))

    @property
    def thresholds(self) -> tuple[str, ...]:
        return tuple(sorted({instance.thresholds for instance in self.instances if instance.thresholds}))


def of_studies(session: Session, study_ids: Sequence[int]) -> dict[int, StudyRecord]:
    """The records of these studies, by id; ids that do not exist are left out."""
    studies = {row.id: row for row in session.execute(_STUDIES.where(Study.id.in_(study_ids)))}
    rows = session.execute(_INSTANCES.where(Instance.study_id.in_(study_ids)).order_by(Instance.id)).all()
    gathered: dict[int, list[Judgeable]] = {study_id: [] for study_id in studies}
    of_these = Instance.study_id.in_(study_ids)
    for judgeable, study_id in _judgeable(session, rows, studies, _frames(session, of_these)):
        gathered[study_id].append(judgeable)
    return {
        study_id: StudyRecord(
            study_id,
            StudyFacts(studies[study_id].study_instance_uid, tuple(found.facts for found in instances)),
            tuple(instances),
        )
        for study_id, instances in gathered.items()
    }


def of_instances(
    session: Session, instance_ids: Sequence[int], seen: Sequence[Seen] | None = None
) -> list[tuple[Judgeable, int]]:
    """These instances, each with the id of its study; ids that do not exist are left out.

    ``seen`` are the frames of their analyses where the caller has just written them all and need not read them again.
    """
    connection = past_mapper(session)
    rows = connection.execute(_CHOSEN_INSTANCES, {"ids": list(instance_ids)}).all()
    chosen = connection.execute(_CHOSEN_STUDIES, {"ids": sorted({row.study_id for row in rows})})
    studies = {row.id: row for row in chosen}
    frames = _frames(session, Instance.id.in_(instance_ids)) if seen is None else _frames_seen(seen)
    return list(_judgeable(session, rows, studies, frames))


_STUDIES: Select[*tuple[Any, ...]] = select(
    Study.id,
    Study.study_instance_uid,
    Study.study_date,
    Study.first_received_at,
    Study.patient_birth_date,
    # Whether they are there; what they say is not read.
    (Study.patient_name != "").label("patient_name"),
    (Study.patient_id != "").label("patient_id"),
    (Study.accession_number != "").label("accession_number"),
    Study.patient_sex,
    Study.description,
    Study.procedure,
    Study.body_part,
    Study.institution,
    Study.station,
    Study.operator,
)

# The analysis that stands: the newest one, which has not been superseded by a re-run.
_INSTANCES: Select[*tuple[Any, ...]] = (
    select(
        Instance.id,
        Instance.study_id,
        Instance.sop_instance_uid,
        Instance.sop_class_uid,
        Instance.sha256,
        Instance.instance_number,
        Instance.number_of_frames,
        Instance.header,
        Instance.conflict,
        Instance.received_at,
        Instance.calling_ae_title,
        Series.modality,
        Series.description.label("series_description"),
        Series.body_part.label("series_body_part"),
        Series.laterality.label("series_laterality"),
        Analysis.id.label("analysis_id"),
        Analysis.state,
        Analysis.reason,
        Analysis.cure,
        Analysis.network,
        Analysis.thresholds,
        Analysis.bands,
    )
    .join(Series, Series.id == Instance.series_id)
    .outerjoin(Analysis, (Analysis.instance_id == Instance.id) & ~Analysis.superseded)
)

_CHOSEN_INSTANCES = _INSTANCES.where(Instance.id.in_(bindparam("ids", expanding=True))).order_by(Instance.id)
_CHOSEN_STUDIES = _STUDIES.where(Study.id.in_(bindparam("ids", expanding=True)))


def _judgeable(
    session: Session, rows: Sequence[Row[Any]], studies: Mapping[int, Row[Any]], frames: _Frames
) -> Iterable[tuple[Judgeable, int]]:
    said = remarks.of_studies(session, list(studies)) if rows else {}
    measured = {study_id for (study_id, _), found in said.items() if any(each.source == "sr" for each in found)}
    unread = remarks.unread(session, list(studies)) if rows else {}
    known: dict[tuple[Any, ...], Words] = {}
    for row in rows:
        study = studies[row.study_id]
        words = _words(row, study)
        # Images of one series say the same; sharing the object lets rules look at it once.
        words = known.setdefault(tuple(words.items()), words)
        of_image = said.get((row.study_id, row.sop_instance_uid), ())
        seen = with_remarks(frames.get(row.analysis_id, ()), of_image)
        measurements = measurements_of(of_image) if row.study_id in measured else None
        facts = _facts(row, study, words, seen, measurements, unread.get(row.study_id, frozenset()))
        in_flight = row.state in IN_FLIGHT
        yield Judgeable(row.id, facts, row.network or "", row.thresholds or "", in_flight), row.study_id


def _words(row: Row[Any], study: Row[Any]) -> Words:
    header = row.header or {}
    told = words_of(
        header,
        study_description=study.description,
        series_description=row.series_description,
        procedure=study.procedure,
        modality=row.modality,
        operator=study.operator,
        ae_title=row.calling_ae_title,
        patient_sex=study.patient_sex,
        **where_silent(
            header,
            body_part=row.series_body_part or study.body_part,
            laterality=row.series_laterality,
            station=study.station,
            institution=study.institution,
        ),
    )
    return {**told, **records_of(header, dict(study._mapping))}


def _facts(
    row: Row[Any],
    study: Row[Any],
    words: Words,
    frames: tuple[FrameFacts, ...],
    measurements: int | None,
    unread: frozenset[Source],
) -> InstanceFacts:
    header: Mapping[str, Any] = row.header or {}
    day = study.study_date or day_of(study.first_received_at)
    return InstanceFacts(
        sop_instance_uid=row.sop_instance_uid,
        number=row.instance_number,
        words=words,
        regions=regions_of(header),
        number_of_frames=row.number_of_frames,
        frames=frames,
        bands={kind: (float(absent), float(present)) for kind, (absent, present) in (row.bands or {}).items()},
        assessed=row.state is AnalysisState.DONE,
        reason=row.reason if row.state is AnalysisState.QUARANTINED else "It has not been assessed yet.",
        cure=(row.cure or "") if row.state is AnalysisState.QUARANTINED else "",
        conflict=row.conflict,
        received=f"{row.received_at.isoformat()} {row.sha256}",
        study_date=day,
        measurements=measurements,
        says=None if row.number_of_frames else source_of(row.sop_class_uid),
        unread=unread,
        patient_age=age_of(str(header.get("patient_age", ""))) or age_in_years(study.patient_birth_date, day),
    )


def _frames(session: Session, of_these: ColumnElement[bool]) -> _Frames:
    """The assessed frames of these instances by their analyses, with what was found on them."""
    # By the instances' own condition: the ids of thousands of frames would be sent, and parsed, as parameters.
    rows = session.execute(
        select(Frame.id, Frame.analysis_id, Frame.number, Frame.scores, Frame.text_read)
        .join(Analysis, Analysis.id == Frame.analysis_id)
        .join(Instance, Instance.id == Analysis.instance_id)
        .where(of_these, *_STANDING)
        .order_by(Frame.analysis_id, Frame.number)
    ).all()
    marks = _marks(session, of_these) if rows else {}
    frames: dict[int, list[FrameFacts]] = defaultdict(list)
    for row in rows:
        frames[row.analysis_id].append(FrameFacts(row.number, row.scores, tuple(marks.get(row.id, ())), row.text_read))
    return {analysis_id: tuple(found) for analysis_id, found in frames.items()}


def _frames_seen(seen: Sequence[Seen]) -> _Frames:
    """The same, of frames whose rows are at hand."""
    frames: dict[int, list[FrameFacts]] = defaultdict(list)
    for each in sorted(seen, key=lambda each: int(each.frame["number"])):
        marks = tuple(
            Mark(
                mark["kind"],
                mark["score"],
                (mark["x"], mark["y"], mark["width"], mark["height"]),
                mark["source"],
                mark["text"],
            )
            for mark in each.marks
        )
        row = each.frame
        frames[row["analysis_id"]].append(FrameFacts(row["number"], row["scores"], marks, row["text_read"]))
    return {analysis_id: tuple(found) for analysis_id, found in frames.items()}


def _marks(session: Session, of_these: ColumnElement[bool]) -> dict[int, list[Mark]]:
    columns = (
        Annotation.frame_id,
        Annotation.kind,
        Annotation.score,
        Annotation.x,
        Annotation.y,
        Annotation.width,
        Annotation.height,
        Annotation.source,
        Annotation.text,
    )
    rows = session.execute(
        select(*columns)
        .join(Frame, Frame.id == Annotation.frame_id)
        .join(Analysis, Analysis.id == Frame.analysis_id)
        .join(Instance, Instance.id == Analysis.instance_id)
        .where(of_these, *_STANDING)
        .order_by(Annotation.frame_id, Annotation.id)
    )
    marks: dict[int, list[Mark]] = defaultdict(list)
    for frame_id, kind, score, x, y, width, height, source, read in rows:
        marks[frame_id].append(Mark(kind, score, (x, y, width, height), source, read))
    return marks
