"""The audit trail: who saw or changed what. Append-only; each row carries the hash of the one before it."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, select, text
from sqlalchemy.orm import Session

from service.db import double_reads
from service.db.tables import AuditEvent, Instance, Series, Study, now

GENESIS = "0" * 64
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_NEWEST = select(AuditEvent.hash).order_by(AuditEvent.id.desc()).limit(1)
_VIEWED = (
    select(AuditEvent.subject)
    .where(AuditEvent.subject.in_(bindparam("uids", expanding=True)))
    .where(AuditEvent.action == "study.view", AuditEvent.actor == bindparam("actor"))
    .distinct()
)
CHAIN_LOCK = 0x50_4E_4D_4B  # any fixed number: the advisory lock that lets one writer at a time add to the chain


@dataclass(frozen=True)
class AuditCheck:
    """What became of the chain: how many events stand, the newest hash, and the first event that does not fit."""

    events: int
    head: str
    broken_at: int | None

    @property
    def whole(self) -> bool:
        """Whether no event was changed, inserted or removed (removal at the very end shows by ``head`` alone)."""
        return self.broken_at is None


def record(
    session: Session,
    actor: str,
    action: str,
    subject: str = "",
    address: str = "",
    detail: dict[str, Any] | None = None,
) -> AuditEvent:
    """Add an event to the chain within the caller's transaction; ``subject`` is a UID or an id, never a name."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_LOCK, {"key": CHAIN_LOCK})
    previous = session.scalar(_NEWEST) or GENESIS
    event = AuditEvent(
        at=now(),
        actor=actor[:64],
        action=action,
        subject=subject[:128],
        address=address[:64],
        detail=detail or {},
        previous_hash=previous,
    )
    event.hash = _hash(event)
    session.add(event)
    session.flush()
    return event


def verify(session: Session) -> AuditCheck:
    """Walk the whole chain and recompute every hash."""
    previous, count = GENESIS, 0
    for event in session.scalars(select(AuditEvent).order_by(AuditEvent.id).execution_options(yield_per=1000)):
        if event.previous_hash != previous or event.hash != _hash(event):
            return AuditCheck(count, previous, event.id)
        previous, count = event.hash, count + 1
    return AuditCheck(count, previous, None)


def holds(session: Session, head: str) -> bool:
    """Whether a hash that was once the newest is still in the chain: if not, its end was cut off and grown again."""
    return session.scalar(select(AuditEvent.id).where(AuditEvent.hash == head)) is not None


def viewed(session: Session, actor: str, uids: Collection[str]) -> set[str]:
    """Those of the studies that this person has opened."""
    return set(session.scalars(_VIEWED, {"uids": list(uids), "actor": actor}))


def viewers(session: Session, uids: Collection[str]) -> set[tuple[str, str]]:
    """(person, study) of everybody who has opened one of these studies."""
    query = select(AuditEvent.actor, AuditEvent.subject).where(AuditEvent.subject.in_(uids))
    return {(actor, uid) for actor, uid in session.execute(query.where(AuditEvent.action == "study.view").distinct())}


def search(
    session: Session,
    *,
    actor: str = "",
    action: str = "",
    subject: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
    second_reader: int | None = None,
) -> list[AuditEvent]:
    """Events, newest first; ``before`` is the id that ended the page before.

    ``second_reader`` is a user who finds nothing of a study that awaits their blinded answer.
    """
    query: Select[AuditEvent] = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)
    if actor:
        query = query.where(AuditEvent.actor == actor)
    if action:
        query = query.where(AuditEvent.action.startswith(action, autoescape=True))
    if subject:
        query = query.where(AuditEvent.subject == subject)
    if since is not None:
        query = query.where(AuditEvent.at >= since)
    if until is not None:
        query = query.where(AuditEvent.at < until)
    if before is not None:
        query = query.where(AuditEvent.id < before)
    if second_reader is not None:
        theirs = double_reads.awaiting(second_reader)
        for uids in (
            select(Study.study_instance_uid).where(Study.id.in_(theirs)),
            select(Series.series_instance_uid).where(Series.study_id.in_(theirs)),
            select(Instance.sop_instance_uid).where(Instance.study_id.in_(theirs)),
        ):
            query = query.where(AuditEvent.subject.not_in(uids))
    return list(session.scalars(query))


def _hash(event: AuditEvent) -> str:
    told = [
        event.at.isoformat(timespec="microseconds"),
        event.actor,
        event.action,
        event.subject,
        event.address,
        event.detail,
        event.previous_hash,
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
