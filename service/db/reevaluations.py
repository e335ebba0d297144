"""Re-evaluations: how far each has come, and what it changed. Any process may take the next step.

Each is cut into slices by the order of its studies. A slice's row is locked while a step works on it, so as many
processes as there are slices work side by side, and one that dies lets go of its slice by dying.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.orm import Session

from service.db.tables import Reevaluation, ReevaluationSlice, Study, Verdict, now
from service.errors import NotFound

STUDIES_NAMED = 200  # of each kind of change; the counts are always complete
AT_ONCE = 2  # slices: in a house of many workers the others go on with images


Change = tuple[Verdict | None, Verdict, str]  # from what to what, and the study's UID


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
    if total:
        _cut(session, asked)
    return asked


def take(session: Session, reevaluation_id: int) -> ReevaluationSlice | None:
    """A slice of it, locked for one step; None when it is over or other processes are at all that is left of it."""
    going_on = select(Reevaluation).where(
        Reevaluation.id == reevaluation_id, Reevaluation.finished_at.is_(None), Reevaluation.cancelled_at.is_(None)
    )
    if session.scalar(going_on) is None:
        return None
    of_this = ReevaluationSlice.reevaluation_id == reevaluation_id
    if not session.scalar(select(exists().where(of_this))):  # it was asked for by an earlier version
        asked = session.scalar(going_on.with_for_update())
        if asked is not None and not session.scalar(select(exists().where(of_this))):
            _cut(session, asked)
    return session.scalar(
        select(ReevaluationSlice)
        .where(of_this, ReevaluationSlice.finished_at.is_(None))
        .order_by(ReevaluationSlice.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )


def next_studies(session: Session, part: ReevaluationSlice, limit: int) -> list[int]:
    """The next studies of a slice, locked in the order of their ids so that two writers never wait in a ring."""
    query = select(Study.id).where(_wanted(part.reevaluation, part.reached, part.last_study))
    query = query.order_by(Study.id).limit(limit)
    return list(session.scalars(query.with_for_update() if part.reevaluation.records else query))


def advance(
    session: Session, part: ReevaluationSlice, looked_at: list[int], changed: list[Change], failed: int = 0
) -> None:
    """Note a step: the studies looked at, which verdicts (would) change, and how many could not be judged."""
    if looked_at:
        part.reached = looked_at[-1]
    else:
        part.finished_at = now()
    session.flush()
    # Last of all, and only until the commit: every slice's steps are counted in this one row.
    of = session.get_one(Reevaluation, part.reevaluation_id, with_for_update=True, populate_existing=True)
    changes: dict[str, Any] = {name: dict(change) for name, change in of.changes.items()}
    for before, after, uid in changed:
        name = f"{before.value if before else 'none'}>{after.value}"
        change = changes.setdefault(name, {"count": 0, "studies": []})
        change["count"] += 1
        if len(change["studies"]) < STUDIES_NAMED:
            change["studies"] = [*change["studies"], uid]
    of.changes = changes
    of.done += len(looked_at)
    of.failed += failed
    left = exists().where(ReevaluationSlice.reevaluation_id == of.id, ReevaluationSlice.finished_at.is_(None))
    if not session.scalar(select(left)):
        of.finished_at = now()
    session.flush()


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


def last_what_if(session: Session, rulebook_version_id: int) -> Reevaluation | None:
    """The newest what-if of a version."""
    of_it = select(Reevaluation).where(
        Reevaluation.rulebook_version_id == rulebook_version_id,
        ~Reevaluation.records,
        Reevaluation.cancelled_at.is_(None),
    )
    return session.scalar(of_it.order_by(Reevaluation.id.desc()).limit(1))


def _cut(session: Session, asked: Reevaluation) -> None:
    """Slices of as many studies each."""
    studies = select(Study.id).where(_wanted(asked, asked.reached, asked.last_study)).order_by(Study.id)
    left = asked.total - asked.done
    reached = asked.reached
    for number in range(1, AT_ONCE):
        following = session.scalar(studies.offset(left * number // AT_ONCE).limit(1))
        if following is not None:
            session.add(ReevaluationSlice(reevaluation_id=asked.id, reached=reached, last_study=following - 1))
            reached = following - 1
    session.add(ReevaluationSlice(reevaluation_id=asked.id, reached=reached, last_study=asked.last_study))
    session.flush()


def _wanted(of: Reevaluation, after: int, last: int) -> ColumnElement[bool]:
    """The studies it judges, of those with ids beyond ``after`` up to ``last``."""
    received = _received(of.received_from, of.received_to)
    return and_(Study.id > after, Study.id <= last, Study.settled, ~Study.synthetic, *received)


def _received(start: datetime | None, end: datetime | None) -> list[ColumnElement[bool]]:
    limits: list[ColumnElement[bool]] = []
    if start is not None:
        limits.append(Study.last_received_at >= start)
    if end is not None:
        limits.append(Study.last_received_at < end)
    return limits
