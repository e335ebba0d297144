"""The queue: which analysis waits, who holds it, how it ended.

The rows here are the truth, the broker is only a doorbell. Every change of a held row is fenced by the token its
holder got with the claim, so that a worker whose lease ran out cannot write over the one that took its place.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, cast
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Table,
    bindparam,
    case,
    delete,
    exists,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.dml import ReturningUpdate

from service.db.rows import insert_all
from service.db.tables import Analysis, AnalysisState, Annotation, Frame, Instance, Study, now
from service.errors import LeaseLost

LAST = 100  # in the queue: the largest priority there is
IN_FLIGHT = (AnalysisState.QUEUED, AnalysisState.CLAIMED)


@dataclass(frozen=True)
class Claim:
    """An analysis held by one worker: ``token`` proves it, ``attempt`` counts from 1."""

    analysis_id: int
    instance_id: int
    token: str
    attempt: int
    queued_at: datetime


@dataclass(frozen=True)
class Assignment:
    """A claim, and what its holder needs to know of the instance."""

    held: Claim
    study_id: int
    archive_key: str
    number_of_frames: int
    correlation_id: str


@dataclass(frozen=True)
class Seen:
    """An assessed frame and the marks on it, as the columns of their rows."""

    frame: dict[str, Any]
    marks: list[dict[str, Any]]


@dataclass(frozen=True)
class Lease:
    """What the sweeper sees of a claim; it is alive as long as ``expires_at`` keeps moving."""

    analysis_id: int
    token: str
    expires_at: datetime
    attempts: int


def add(session: Session, instance: Instance) -> Analysis:
    """Queue ``instance``; an older analysis of it no longer stands."""
    if instance.id is not None:
        older = Analysis.instance_id == instance.id
        session.execute(update(Analysis).where(older, ~Analysis.superseded).values(superseded=True))
    analysis = Analysis(instance=instance)
    session.add(analysis)
    session.flush()
    return analysis


def claim(session: Session, limit: int, lease_s: float, *, fresh: bool = False, sharers: int = 1) -> list[Claim]:
    """Take up to ``limit`` queued analyses, the most urgent and then the oldest first.

    One statement: two workers never get the same row, and the attempt is counted before any work is done, so that
    an instance that kills its worker is counted too. One that failed before is claimed alone, and never by a worker
    that asks for ``fresh`` ones only because it is at others: were it to kill the worker again, those would be counted
    with it.

    Where fewer wait than ``sharers`` workers would take, each takes its share, and one that is at others takes none:
    the images of a study shall not lie behind each other with one worker while another has nothing to do.
    """
    rows = session.connection()
    beginning = _EARLIEST
    if limit > 1 or fresh:
        enough = limit * sharers if sharers > 1 else 1
        waiting = rows.execute(_FIRST, {"at_most": enough}).all()
        if not waiting or (fresh and (waiting[0].attempts or len(waiting) < enough)):
            return []
        first = waiting[0]
        share = ceil(len(waiting) / sharers) if sharers > 1 else limit
        limit = 1 if first.attempts else min(limit, share)
        beginning = {"priority_of_first": first.priority, "id_of_first": first.id}
    at = now()
    given = {"token": uuid4().hex, "claimed_at": at, "lease_expires_at": at + timedelta(seconds=lease_s)}
    taken = rows.execute(_CLAIM_FRESH if limit > 1 or fresh else _CLAIM, {"at_most": limit, **beginning, **given})
    claims = [Claim(row.id, row.instance_id, row.token, row.attempts, row.queued_at) for row in taken]
    return sorted(claims, key=lambda held: held.analysis_id)


def assignments(session: Session, claims: Sequence[Claim]) -> list[Assignment]:
    """The claims in their order, each with its instance."""
    if not claims:
        return []
    found = session.connection().execute(_ASSIGNED, {"ids": [held.instance_id for held in claims]})
    of = {row.id: row for row in found}
    return [Assignment(held, *of[held.instance_id][1:]) for held in claims]


def renew(session: Session, claims: Collection[Claim], lease_s: float) -> None:
    """Say that the holder is alive and still at work."""
    for held in sorted(claims, key=lambda held: held.analysis_id):  # in the order in which `finish_all` locks them
        _change(session, held, lease_expires_at=now() + timedelta(seconds=lease_s))


def finish(session: Session, held: Claim, **record: Any) -> None:
    """The analysis is done; ``record`` holds the versions, the provider and the times.

    Raises `LeaseLost` when another worker has taken over, and then nothing of this transaction may be kept.
    """
    if not finish_all(session, {held: record}):
        raise LeaseLost(f"Analysis {held.analysis_id} is held by another worker.")


def finish_all(session: Session, records: Mapping[Claim, Mapping[str, Any]]) -> set[Claim]:
    """`finish` for several at once; those that were this worker's to finish. Nothing is changed of the others."""
    rows = session.connection()
    found = rows.execute(_STILL_HELD, {"ids": [held.analysis_id for held in records]})
    tokens = {row.id: row.token for row in found}
    mine = {held for held in records if tokens.get(held.analysis_id) == held.token}
    done = {
        "state": AnalysisState.DONE,
        "finished_at": now(),
        "token": None,
        "lease_expires_at": None,
        "reason": "",
        "cure": "",
    }
    values: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for held in sorted(mine, key=lambda held: held.analysis_id):
        fence = {"held_id": held.analysis_id, "held_token": held.token}
        values[tuple(sorted(records[held]))].append({**fence, **done, **records[held]})
    for alike in values.values():  # one statement takes the same columns for each of its rows
        rows.execute(_HELD, alike)
    return mine


def hand_back(session: Session, held: Claim, reason: str, cure: str, *, counted: bool = True) -> bool:
    """Back into the queue for another attempt; False when the claim was no longer this worker's.

    An attempt that failed because the house around it is out of order (no disk, no network weights) is not ``counted``,
    and waits behind the others: a bucket that lost one object has them all, and nobody would come to them.
    """
    if not counted:
        mine = _rows.c.id == held.analysis_id, _rows.c.token == held.token, _rows.c.priority < LAST
        session.connection().execute(update(_rows).where(*mine).values(priority=_rows.c.priority + 1))
    return _change(
        session,
        held,
        state=AnalysisState.QUEUED,
        token=None,
        lease_expires_at=None,
        attempts=held.attempt if counted else held.attempt - 1,
        reason=reason,
        cure=cure,
    )


def quarantine(session: Session, held: Claim | Lease, reason: str, cure: str) -> bool:
    """Give up, visibly; False when the claim was no longer this worker's."""
    return _change(
        session,
        held,
        state=AnalysisState.QUARANTINED,
        finished_at=now(),
        token=None,
        lease_expires_at=None,
        reason=reason,
        cure=cure,
    )


def requeue(session: Session, analysis_ids: Sequence[int]) -> list[int]:
    """A person asks for another try of quarantined analyses; returns those that were queued again."""
    again = session.scalars(
        update(Analysis)
        .where(Analysis.id.in_(analysis_ids), Analysis.state == AnalysisState.QUARANTINED)
        .values(state=AnalysisState.QUEUED, attempts=0, queued_at=now(), finished_at=None, reason="", cure="")
        .returning(Analysis.id)
        .execution_options(synchronize_session=False)
    )
    return sorted(again)


def keep_frames(session: Session, held: Collection[Claim], frames: Sequence[Seen]) -> None:
    """The assessed frames of claimed analyses, in place of those of an earlier attempt."""
    if again := [each.analysis_id for each in held if each.attempt > 1]:
        earlier = select(Frame.id).where(Frame.analysis_id.in_(again))
        session.execute(delete(Annotation).where(Annotation.frame_id.in_(earlier)))
        session.execute(delete(Frame).where(Frame.analysis_id.in_(again)))
    kept = insert_all(session, _frames, [each.frame for each in frames], *_FRAME)
    ids = {(row.analysis_id, row.number): row.id for row in kept}
    marks = [
        {**mark, "frame_id": ids[each.frame["analysis_id"], each.frame["number"]]}
        for each in frames
        for mark in each.marks
    ]
    insert_all(session, _annotations, marks)


def leases(session: Session) -> list[Lease]:
    """Every claim there is, expired or not."""
    held = session.execute(
        select(Analysis.id, Analysis.token, Analysis.lease_expires_at, Analysis.attempts).where(
            in_state(AnalysisState.CLAIMED)
        )
    )
    return [Lease(row.id, row.token, row.lease_expires_at, row.attempts) for row in held]


def overdue(session: Session, at: datetime) -> int:
    """How many claims had run out by then."""
    ran_out = select(func.count()).where(in_state(AnalysisState.CLAIMED), Analysis.lease_expires_at < at)
    return session.scalar(ran_out) or 0


def take_away(session: Session, lease: Lease, reason: str) -> bool:
    """Back into the queue from a worker that fell silent; False when it stirred in the meantime."""
    return _change(
        session,
        lease,
        state=AnalysisState.QUEUED,
        token=None,
        lease_expires_at=None,
        reason=reason,
    )


def known(session: Session, analysis_id: int) -> bool:
    """Whether there is such an analysis."""
    return bool(session.scalar(select(exists().where(Analysis.id == analysis_id))))


def standing(session: Session, state: AnalysisState) -> tuple[int, datetime | None]:
    """How many analyses are in this state, and since when the oldest was queued; not for `DONE`, the archive."""
    count, oldest = session.execute(
        select(func.count(), func.min(Analysis.queued_at)).where(in_state(state), ~Analysis.superseded)
    ).one()
    return count, oldest


def oldest_waiting(session: Session, limit: int) -> list[int]:
    """Ids of the analyses that a worker would claim next."""
    return list(session.scalars(_next(Analysis.id), {"at_most": limit}))


def flow(session: Session) -> dict[str, int | float]:
    """What became of every acknowledged instance: each is either terminal or in flight, at every moment.

    One statement, so that the sum holds while instances arrive and finish.
    """
    in_flight = Analysis.state.in_(IN_FLIGHT)
    acknowledged, flying, quarantined, oldest = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(case((in_flight, 1), else_=0)), 0),
            func.coalesce(func.sum(case((Analysis.state == AnalysisState.QUARANTINED, 1), else_=0)), 0),
            func.min(case((in_flight, Analysis.queued_at))),
        ).where(~Analysis.superseded)
    ).one()
    age = max(0.0, (now() - oldest).total_seconds()) if oldest else 0.0
    return {
        "acknowledged": acknowledged,
        "terminal": acknowledged - flying,
        "in_flight": flying,
        "quarantined": quarantined,
        "oldest_in_flight_s": round(age, 3),
    }


def stages(session: Session) -> dict[str, int]:
    """How many instances wait, are with a worker and are held back, and how many studies are still to settle."""
    unsettled = session.scalar(select(func.count()).select_from(Study).where(~Study.settled)) or 0
    return {
        "waiting": standing(session, AnalysisState.QUEUED)[0],
        "with a worker": standing(session, AnalysisState.CLAIMED)[0],
        "studies to settle": unsettled,
        "held back": standing(session, AnalysisState.QUARANTINED)[0],
    }


def _next(*columns: InstrumentedAttribute[int]) -> Select[*tuple[Any, ...]]:
    """``columns`` of those that wait, in the order in which they are claimed."""
    queued = select(*columns).where(in_state(AnalysisState.QUEUED))
    return queued.order_by(Analysis.priority, Analysis.id).limit(bindparam("at_most", type_=Integer()))


def in_state(state: AnalysisState) -> ColumnElement[bool]:
    """Written into the statement, not bound to it: only then does a planner use the partial index of that state."""
    return Analysis.state == bindparam(None, state, type_=Analysis.__table__.c.state.type, literal_execute=True)


def _claiming(*, fresh: bool) -> ReturningUpdate[Any]:
    # From the first that was just seen: PostgreSQL's index keeps the entries of all that were claimed since its last
    # VACUUM before it, and a claim that walks past them takes the longer the more have been drained.
    place = tuple_(_rows.c.priority, _rows.c.id)
    beginning = tuple_(bindparam("priority_of_first", type_=Integer()), bindparam("id_of_first", type_=_rows.c.id.type))
    waiting = select(_rows.c.id, _rows.c.attempts).where(in_state(AnalysisState.QUEUED), place >= beginning)
    waiting = waiting.order_by(_rows.c.priority, _rows.c.id).limit(bindparam("at_most", type_=Integer()))
    # SKIP LOCKED lets claimers pass each other in PostgreSQL; SQLite has one writer at a time and no such words.
    first = waiting.with_for_update(skip_locked=True).cte("waiting")
    # Fresh ones among the first, not the first of the fresh ones: that condition would take the planner, while the
    # table's statistics lag behind, from the queue's own index to sorting all that wait.
    chosen = select(first.c.id).where(first.c.attempts == 0) if fresh else select(first.c.id)
    return (
        update(_rows)
        .where(_rows.c.id.in_(chosen))
        .values(
            state=AnalysisState.CLAIMED,
            token=bindparam("token"),
            attempts=_rows.c.attempts + 1,
            claimed_at=bindparam("claimed_at"),
            lease_expires_at=bindparam("lease_expires_at"),
        )
        .returning(_rows.c.id, _rows.c.instance_id, _rows.c.token, _rows.c.attempts, _rows.c.queued_at)
    )


def _change(session: Session, held: Claim | Lease, **values: Any) -> bool:
    """Change the row if, and only if, the token still fits and a lease seen earlier has not moved."""
    mine = {"held_id": held.analysis_id, "held_token": held.token}
    if isinstance(held, Lease):
        changed = session.connection().execute(_HELD_LEASE, {**mine, "held_expiry": held.expires_at, **values})
    else:
        changed = session.connection().execute(_HELD, {**mine, **values})
    return bool(changed.rowcount)


def mask_keys(session: Session, analysis_ids: Sequence[int]) -> set[str]:
    """The masks in the archive that frames of these analyses name."""
    return set(session.scalars(select(Frame.mask_key).where(Frame.analysis_id.in_(analysis_ids))))


# Every image passes these: in the table's own terms and built once, they cost a fifth of what the mapper takes.
_rows = cast(Table, Analysis.__table__)
_frames = cast(Table, Frame.__table__)
_annotations = cast(Table, Annotation.__table__)
_FRAME = (_frames.c.id, _frames.c.analysis_id, _frames.c.number)
_EARLIEST = {"priority_of_first": -(2**31), "id_of_first": 0}
_FIRST = _next(Analysis.attempts, Analysis.priority, Analysis.id)
_CLAIM = _claiming(fresh=False)
_CLAIM_FRESH = _claiming(fresh=True)
_ASSIGNED = select(
    Instance.id, Instance.study_id, Instance.archive_key, Instance.number_of_frames, Instance.correlation_id
).where(Instance.id.in_(bindparam("ids", expanding=True)))
_HELD = update(_rows).where(
    _rows.c.id == bindparam("held_id"),
    _rows.c.state == AnalysisState.CLAIMED,
    _rows.c.token == bindparam("held_token"),
)
_STILL_HELD = (
    select(_rows.c.id, _rows.c.token)
    .where(_rows.c.id.in_(bindparam("ids", expanding=True)), _rows.c.state == AnalysisState.CLAIMED)
    .order_by(_rows.c.id)
    .with_for_update()
)
_HELD_LEASE = _HELD.where(_rows.c.lease_expires_at == bindparam("held_expiry"))
