"""Re-evaluations: how far each has come, and what it changed. Any process may take the next step."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from service.db.tables import Reevaluation, Study, Verdict, now
from service.errors import NotFound

STUDIES_NAMED = 200  # of each kind of change; the counts are always complete


@dataclass(frozen=True, slots=True)
class Range:
    """Which studies: those received from ``start`` up to ``end``, or the last so many, or all of them."""

    start: datetime | None = None
    end: datetime | None = None
    last: int | None = None


def ask(session: Session, rulebook_version_id: int, which: Range, by: str, *, records: bool) -> Reevaluation:
    """Ask for a re-evaluation; ``records`` False is a what-if, which writes no verdict."""
    conditions = [Study.settled, ~Study.synthetic, *_received(which.start, which.end)]
    ids = select(Study.id).where(*conditions)
    if which.last is not None:
        ids = ids.order_by(Study.id.desc()).limit(which.last)
    found = ids.subquery()
    first, last, total = session.execute(select(func.min(found.c.id), func.max(found.c.id), func.count())).one()
    asked = Reevaluation(
        rulebook_version_id=rulebook_version_id,
        requested_by=by,
        records=records,
        first_study=first or 0,
        last_study=last or 0,
        received_from=which.start,
        received_to=which.end,
        reached=(first or 1) - 1,
        total=total,
        finished_at=None if total else now(),
    )
    session.add(asked)
    session.flush()
    return asked


def take(session: Session, reevaluation_id: int) -> Reevaluation | None:
    """The re-evaluation with its row locked for one step; None when it is over or another process is at it."""
    return session.scalar(
        select(Reevaluation)
        .where(
            Reevaluation.id == reevaluation_id,
            Reevaluation.finished_at.is_(None),
            Reevaluation.cancelled_at.is_(None),
        )
        .with_for_update(skip_locked=True)
    )


def next_studies(session: Session, of: Reevaluation, limit: int) -> list[int]:
    """The next studies in its range, locked in the order of their ids so that two writers never wait in a ring."""
    query = (
        select(Study.id)
        .where(Study.id > of.reached, Study.id <= of.last_study, Study.settled, ~Study.synthetic)
        .where(*_received(of.received_from, of.received_to))
        .order_by(Study.id)
        .limit(limit)
    )
    return list(session.scalars(query.with_for_update() if of.records else query))


def advance(of: Reevaluation, looked_at: list[int], changed: list[tuple[Verdict | None, Verdict, str]]) -> None:
    """Note a step: the studies looked at, and which verdicts (would) change, from what to what, by study UID."""
    changes: dict[str, Any] = {name: dict(change) for name, change in of.changes.items()}
    for before, after, uid in changed:
        name = f"{before.value if before else 'none'}>{after.value}"
        change = changes.setdefault(name, {"count": 0, "studies": []})
        change["count"] += 1
        if len(change["studies"]) < STUDIES_NAMED:
            change["studies"] = [*change["studies"], uid]
    of.changes = changes
    of.done += len(looked_at)
    if looked_at:
        of.reached = looked_at[-1]
    else:
        of.finished_at = now()


def cancel(session: Session, reevaluation_id: int) -> Reevaluation:
    """Stop it after the step that is under way; what was recorded stays."""
    found = get(session, reevaluation_id)
    if found.finished_at is None and found.cancelled_at is None:
        found.cancelled_at = now()
    return found


def get(session: Session, reevaluation_id: int) -> Reevaluation:
    found = session.get(Reevaluation, reevaluation_id)
    if found is None:
        raise NotFound(f"There is no re-evaluation {reevaluation_id}.")
    return found


def unfinished(session: Session) -> list[int]:
    """Re-evaluations that somebody must take further, oldest first."""
    query = select(Reevaluation.id).where(Reevaluation.finished_at.is_(None), Reevaluation.cancelled_at.is_(None))
    return list(session.scalars(query.order_by(Reevaluation.id)))


def newest(session: Session, limit: int = 20) -> list[Reevaluation]:
    """The last re-evaluations, newest first."""
    return list(session.scalars(select(Reevaluation).order_by(Reevaluation.id.desc()).limit(limit)))


def _received(start: datetime | None, end: datetime | None) -> list[ColumnElement[bool]]:
    limits: list[ColumnElement[bool]] = []
    if start is not None:
        limits.append(Study.last_received_at >= start)
    if end is not None:
        limits.append(Study.last_received_at < end)
    return limits
