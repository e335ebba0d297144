"""Studies and instances as the dashboard and the API read them: found by UID, with everything that hangs on them.

``site`` is the institution an account is bound to: what belongs to another one is not found, as if it were not there.
"""

from sqlalchemy import Select, exists, select, update
from sqlalchemy.orm import Session, joinedload, selectinload

from service.db import analyses
from service.db.tables import Analysis, AnalysisState, Frame, Instance, Series, Study, VerdictRecord, now
from service.errors import NotFound


def find(session: Session, study_instance_uid: str, site: str = "") -> Study:
    """The study with its series, instances, analyses, frames and annotations."""
    query = select(Study).where(Study.study_instance_uid == study_instance_uid)
    query = query.options(
        selectinload(Study.series),
        selectinload(Study.instances)
        .selectinload(Instance.analyses)
        .selectinload(Analysis.frames)
        .selectinload(Frame.annotations),
    )
    study = session.scalar(_of(query, site))
    if study is None:
        raise NotFound(
            "There is no study of that UID.", cure="It may have been removed, or belong to another institution."
        )
    study.instances.sort(key=lambda instance: (instance.instance_number or 0, instance.id))
    return study


def brief(session: Session, study_instance_uid: str, site: str = "") -> Study:
    """The study's own row alone."""
    study = session.scalar(_of(select(Study).where(Study.study_instance_uid == study_instance_uid), site))
    if study is None:
        raise NotFound(
            "There is no study of that UID.", cure="It may have been removed, or belong to another institution."
        )
    return study


def by_accession(session: Session, accession_number: str, site: str = "") -> list[Study]:
    """Studies of an accession number, newest first."""
    query = select(Study).where(Study.accession_number == accession_number).order_by(Study.id.desc())
    return list(session.scalars(_of(query, site)))


def instance(session: Session, sop_instance_uid: str, site: str = "", sha256: str = "") -> Instance:
    """An instance with its study and analyses; of several versions the named one, else the newest."""
    query = select(Instance).join(Study).where(Instance.sop_instance_uid == sop_instance_uid)
    if site:
        query = query.where(Study.institution == site)
    if sha256:
        query = query.where(Instance.sha256.startswith(sha256, autoescape=True))
    query = query.options(
        joinedload(Instance.study),
        selectinload(Instance.analyses).selectinload(Analysis.frames).selectinload(Frame.annotations),
    )
    found = session.scalar(query.order_by(Instance.id.desc()).limit(1))
    if found is None:
        raise NotFound(
            "There is no instance of that UID.", cure="It may have been removed, or belong to another institution."
        )
    return found


def is_elsewhere(session: Session, study_instance_uid: str, sop_instance_uid: str, site: str) -> bool:
    """Whether a study or an instance of that UID is here already, and of another institution than ``site``."""
    of_another = Study.institution.not_in(("", site))
    study = exists().where(Study.study_instance_uid == study_instance_uid, of_another)
    instance = exists().where(Instance.study_id == Study.id, Instance.sop_instance_uid == sop_instance_uid, of_another)
    return bool(session.scalar(select(study | instance)))


def versions(session: Session, sop_instance_uid: str) -> list[Instance]:
    """Every stored version of an instance, oldest first; more than one means that different bytes came."""
    query = select(Instance).where(Instance.sop_instance_uid == sop_instance_uid).order_by(Instance.id)
    return list(session.scalars(query))


def series_uid(session: Session, of: Instance) -> str:
    """The Series Instance UID of an instance."""
    return session.scalar(select(Series.series_instance_uid).where(Series.id == of.series_id)) or ""


def latest(of: Instance) -> Analysis | None:
    """The analysis that stands for the instance."""
    return of.analyses[-1] if of.analyses else None


def frame(of: Instance, number: int) -> Frame | None:
    """The assessed frame of the standing analysis; None when that frame was not sampled."""
    analysis = latest(of)
    if analysis is None:
        return None
    return next((frame for frame in analysis.frames if frame.number == number), None)


def verdicts(session: Session, study: Study) -> list[VerdictRecord]:
    """The study's own verdicts, newest first: the first one stands unless it is superseded."""
    return list(
        session.scalars(
            select(VerdictRecord)
            .where(VerdictRecord.study_id == study.id, VerdictRecord.instance_id.is_(None))
            .options(selectinload(VerdictRecord.findings))
            .order_by(VerdictRecord.id.desc())
        )
    )


def instance_verdicts(session: Session, study: Study) -> dict[int, VerdictRecord]:
    """The standing verdict of each instance of the study, by the instance's id."""
    found = session.scalars(
        select(VerdictRecord)
        .where(
            VerdictRecord.study_id == study.id,
            VerdictRecord.instance_id.is_not(None),
            VerdictRecord.superseded_at.is_(None),
        )
        .options(selectinload(VerdictRecord.findings))
    )
    return {record.instance_id: record for record in found if record.instance_id is not None}


def _of(query: Select[Study], site: str) -> Select[Study]:
    return query.where(Study.institution == site) if site else query


def held_back(session: Session, limit: int = 200, site: str = "") -> list[Analysis]:
    """Quarantined analyses that stand, newest first, each with its instance."""
    query = select(Analysis).where(analyses.in_state(AnalysisState.QUARANTINED), ~Analysis.superseded)
    if site:
        query = query.where(Analysis.instance.has(Instance.study.has(Study.institution == site)))
    query = query.options(joinedload(Analysis.instance).joinedload(Instance.study))
    return list(session.scalars(query.order_by(Analysis.id.desc()).limit(limit)))


def touch(session: Session, study: Study) -> None:
    """Let open worklists know that something about the study changed that is no business of its version."""
    session.execute(update(Study).where(Study.id == study.id).values(changed_at=now()))
