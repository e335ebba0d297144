"""Retention: policies, legal holds, what may be released and what protects it, and the tombstones."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, exists, func, select, update
from sqlalchemy.orm import Session

from service.db.tables import (
    Analysis,
    AnalysisState,
    Delivery,
    DeliveryState,
    DoubleRead,
    DoubleReadState,
    Hold,
    Instance,
    LegalHold,
    ObjectCheck,
    Release,
    RetentionPolicy,
    Series,
    Study,
    now,
)
from service.db.tables.studies import FLAGGED, UNCERTAIN
from service.errors import Conflict, NotFound

UNFINISHED = (AnalysisState.QUEUED, AnalysisState.CLAIMED, AnalysisState.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study that still has bytes, old enough for the shortest rule."""

    study: Study
    modalities: frozenset[str]
    instances: int
    octets: int
    protection: str  # why no rule may release it; empty: nothing stands against it


@dataclass(frozen=True, slots=True)
class Released:
    """One instance whose bytes are to go."""

    instance_id: int
    archive_key: str
    sha256: str


def keep_draft(session: Session, name: str, sha256: str, toml: str, by: str) -> RetentionPolicy:
    """The policy with exactly this text, made if it is new."""
    found = session.scalar(select(RetentionPolicy).where(RetentionPolicy.sha256 == sha256))
    if found is None:
        found = RetentionPolicy(name=name, sha256=sha256, toml=toml, created_by=by)
        session.add(found)
        session.flush()
    return found


def get(session: Session, policy_id: int) -> RetentionPolicy:
    found = session.get(RetentionPolicy, policy_id)
    if found is None:
        raise NotFound(f"There is no retention policy {policy_id}.")
    return found


def in_force(session: Session) -> RetentionPolicy | None:
    """The policy that a person activated; None: everything is kept."""
    active = and_(RetentionPolicy.activated_at.is_not(None), RetentionPolicy.retired_at.is_(None))
    return session.scalar(select(RetentionPolicy).where(active).order_by(RetentionPolicy.activated_at.desc()).limit(1))


def activate(session: Session, policy: RetentionPolicy, by: str) -> None:
    """From now on this policy, and no other, releases bytes."""
    retire(session)
    policy.activated_by, policy.activated_at, policy.retired_at = by, now(), None
    session.flush()


def retire(session: Session) -> None:
    """From now on everything is kept."""
    active = RetentionPolicy.activated_at.is_not(None), RetentionPolicy.retired_at.is_(None)
    session.execute(update(RetentionPolicy).where(*active).values(retired_at=now()))


def policies(session: Session) -> list[RetentionPolicy]:
    """Every one there ever was, newest first."""
    return list(session.scalars(select(RetentionPolicy).order_by(RetentionPolicy.id.desc())))


def place_hold(session: Session, study: Study, reason: str, by: str) -> LegalHold:
    """Keep the study's bytes whatever a policy says; raises Conflict when a hold stands already."""
    _lock(session, study.id)  # a release that is under way ends first, or sees the hold
    if standing_hold(session, study.id) is not None:
        raise Conflict("A legal hold stands on this study already.", cure="Lift it first to place it anew.")
    hold = LegalHold(study_id=study.id, reason=reason, placed_by=by)
    session.add(hold)
    session.flush()
    return hold


def lift_hold(session: Session, study: Study, by: str) -> LegalHold:
    """Raises NotFound when no hold stands."""
    hold = standing_hold(session, study.id)
    if hold is None:
        raise NotFound("No legal hold stands on this study.", cure="Nothing need be lifted.")
    hold.lifted_by, hold.lifted_at = by, now()
    session.flush()
    return hold


def standing_hold(session: Session, study_id: int) -> LegalHold | None:
    return session.scalar(select(LegalHold).where(LegalHold.study_id == study_id, LegalHold.lifted_at.is_(None)))


def standing_holds(session: Session) -> list[tuple[Study, LegalHold]]:
    """Every study on hold, the newest hold first."""
    held = (
        select(Study, LegalHold)
        .join(LegalHold, LegalHold.study_id == Study.id)
        .where(LegalHold.lifted_at.is_(None))
        .order_by(LegalHold.id.desc())
    )
    return [(study, hold) for study, hold in session.execute(held)]


def candidates(session: Session, last_image_before: datetime, page: int = 200) -> Iterator[Candidate]:
    """Studies with bytes whose last image came before that moment, in the order of their ids."""
    after, protections = 0, _protections()
    labelled = [condition.label(f"protection_{number}") for number, condition in enumerate(protections.values())]
    while True:
        rows = session.execute(
            select(Study, *labelled)
            .where(Study.id > after, Study.last_received_at < last_image_before, _has_bytes())
            .order_by(Study.id)
            .limit(page)
        ).all()
        if not rows:
            return
        ids = [row[0].id for row in rows]
        sizes = _sizes(session, ids)
        modalities = _modalities(session, ids)
        for study, *protected in rows:
            count, octets = sizes.get(study.id, (0, 0))
            why = next((words for words, holds in zip(protections, protected, strict=True) if holds), "")
            yield Candidate(study, modalities.get(study.id, frozenset()), count, octets, why)
        after = ids[-1]


def release(session: Session, study_id: int, policy_id: int, rule: str, last_image_before: datetime) -> int:
    """Write the tombstones of a study's instances, unless something protects it by now; how many.

    The study's row is locked: an image that comes in at this moment waits, and finds the tombstone.
    """
    _lock(session, study_id)
    free = [~condition for condition in _protections().values()]
    study = session.scalar(select(Study).where(Study.id == study_id, Study.last_received_at < last_image_before, *free))
    if study is None:
        return 0
    with_bytes = session.scalars(select(Instance.id).where(Instance.study_id == study_id, ~_released()))
    tombstones = [Release(instance_id=id_, policy_id=policy_id, rule=rule) for id_ in with_bytes]
    session.add_all(tombstones)
    study.version += 1
    session.flush()
    return len(tombstones)


def is_released(session: Session, instance_id: int) -> bool:
    """Whether a policy gave the instance's bytes up."""
    return session.get(Release, instance_id) is not None


def released_of(session: Session, study_id: int) -> set[int]:
    """Ids of the study's instances whose bytes a policy gave up."""
    query = select(Release.instance_id).join(Instance, Instance.id == Release.instance_id)
    return set(session.scalars(query.where(Instance.study_id == study_id)))


def undone(session: Session, limit: int) -> list[int]:
    """Studies with tombstones whose bytes are still there."""
    query = select(Instance.study_id).join(Release, Release.instance_id == Instance.id)
    return list(session.scalars(query.where(Release.deleted_at.is_(None)).distinct().limit(limit)))


def to_delete(session: Session, study_id: int, limit: int) -> list[Released]:
    """Instances whose bytes may go now; their study stays locked until the transaction ends.

    None while a legal hold stands that came after the tombstones.
    """
    _lock(session, study_id)
    if standing_hold(session, study_id) is not None:
        return []
    query = select(Instance.id, Instance.archive_key, Instance.sha256).join(Release, Release.instance_id == Instance.id)
    query = query.where(Instance.study_id == study_id, Release.deleted_at.is_(None)).limit(limit)
    return [Released(*row) for row in session.execute(query)]


def note_deleted(session: Session, instance_ids: list[int]) -> None:
    """Their bytes are gone; nor are they damaged or missing any longer."""
    session.execute(update(Release).where(Release.instance_id.in_(instance_ids)).values(deleted_at=now()))
    session.execute(delete(ObjectCheck).where(ObjectCheck.instance_id.in_(instance_ids)))


def newest_image(session: Session) -> datetime | None:
    """When the last image of all came; None: there is none."""
    return session.scalar(select(func.max(Study.last_received_at)))


def _lock(session: Session, study_id: int) -> None:
    """Nobody else writes to the study until the transaction ends.

    A statement of its own: what waits for a lock still sees the other tables as they were before.
    """
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update())


def _released() -> ColumnElement[bool]:
    return exists().where(Release.instance_id == Instance.id).correlate(Instance)


def _has_bytes() -> ColumnElement[bool]:
    return exists().where(Instance.study_id == Study.id, ~_released()).correlate(Study)


def _of_study(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(*conditions).correlate(Study)


def _protections() -> dict[str, ColumnElement[bool]]:
    """Each with its words for people. While one of them holds, no policy releases the study's bytes."""
    in_conflict = Study.conflict | _of_study(Instance.study_id == Study.id, Instance.conflict.is_(True))
    return {
        "under legal hold": _of_study(LegalHold.study_id == Study.id, LegalHold.lifted_at.is_(None)),
        "in flight or quarantined": _of_study(
            Instance.study_id == Study.id,
            Analysis.instance_id == Instance.id,
            ~Analysis.superseded,
            Analysis.state.in_(UNFINISHED),
        ),
        "not settled or not judged": ~Study.settled | Study.verdict.is_(None),
        "flagged and not reviewed": Study.rank.in_((FLAGGED, UNCERTAIN)),
        "in conflict": in_conflict,
        "in a person's hands": _of_study(Hold.study_id == Study.id, Hold.expires_at > now()),
        "still to be delivered": _of_study(Delivery.study_id == Study.id, Delivery.state == DeliveryState.WAITING),
        "waiting for a second reading": _of_study(
            DoubleRead.study_id == Study.id, DoubleRead.state != DoubleReadState.DONE
        ),
    }


def _sizes(session: Session, ids: list[int]) -> dict[int, tuple[int, int]]:
    query = select(Instance.study_id, func.count(), func.sum(Instance.size)).where(Instance.study_id.in_(ids))
    rows = session.execute(query.where(~_released()).group_by(Instance.study_id))
    return {study_id: (count, int(octets)) for study_id, count, octets in rows}


def _modalities(session: Session, ids: list[int]) -> dict[int, frozenset[str]]:
    found: dict[int, set[str]] = {}
    for study_id, modality in session.execute(select(Series.study_id, Series.modality).where(Series.study_id.in_(ids))):
        found.setdefault(study_id, set()).add(modality)
    return {study_id: frozenset(names) for study_id, names in found.items()}
