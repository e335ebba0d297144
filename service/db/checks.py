"""Looks at archived bytes: what each found, how far the pass of the scheduled verification is, what is ill."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, func, or_, select, update
from sqlalchemy.orm import Session

from service.db.tables import Condition, Instance, ObjectCheck, Release, Verification, now


@dataclass(frozen=True, slots=True)
class Stored:
    """An instance as the archive should have it."""

    instance_id: int
    sop_instance_uid: str
    archive_key: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Health:
    """The archive's bytes as the last looks found them."""

    stored: int  # instances whose bytes should be there
    checked: int  # of them looked at since they arrived
    damaged: int
    missing: int
    oldest_check: datetime | None
    last_full_pass: datetime | None  # when the newest complete pass began

    @property
    def ill(self) -> int:
        return self.damaged + self.missing


def stored(session: Session, after_id: int, limit: int, *, up_to: int | None = None) -> list[Stored]:
    """Instances that nobody released, in the order of their ids, a page at a time."""
    query = _unreleased(after_id).order_by(Instance.id).limit(limit)
    return _stored(session, query if up_to is None else query.where(Instance.id <= up_to))


def unchecked(session: Session, after_id: int, limit: int, since: datetime) -> list[Stored]:
    """Those among them whose last look is older than ``since``, or that were never looked at."""
    return _stored(session, _due(after_id, since).order_by(Instance.id).limit(limit))


def count_unchecked(session: Session, since: datetime) -> int:
    """How many `unchecked` instances there are."""
    return session.scalar(select(func.count()).select_from(_due(0, since).subquery())) or 0


def beginning_with(session: Session, prefix: str) -> list[Stored]:
    """Instances that nobody released and whose digest begins with these hexadecimal digits."""
    return _stored(session, _unreleased(0).where(Instance.sha256.startswith(prefix, autoescape=True)))


def record(session: Session, found: Mapping[int, Condition]) -> None:
    """Write down what was found, by instance; of bytes that were given up meanwhile there is nothing to say."""
    for instance_id, condition in found.items():
        if session.get(Release, instance_id) is not None:
            continue
        session.merge(ObjectCheck(instance_id=instance_id, condition=condition, checked_at=now()))
    session.flush()


def forget_missing(session: Session, instance_ids: Collection[int]) -> int:
    """What was missing is there again: it waits for its next look as if it had just arrived. How many there were."""
    gone = session.scalars(select(ObjectCheck.instance_id).where(ObjectCheck.condition == Condition.MISSING))
    back = set(gone) & set(instance_ids)
    session.execute(delete(ObjectCheck).where(ObjectCheck.instance_id.in_(back)))
    return len(back)


def ill(session: Session, limit: int = 200) -> list[tuple[Stored, ObjectCheck]]:
    """Damaged and missing objects, the newest look first."""
    rows = session.execute(
        select(Instance, ObjectCheck)
        .join(ObjectCheck, ObjectCheck.instance_id == Instance.id)
        .where(ObjectCheck.condition != Condition.OK)
        .order_by(ObjectCheck.checked_at.desc())
        .limit(limit)
    )
    return [(_of(row), check) for row, check in rows]


def counts(session: Session) -> dict[Condition, int]:
    """How many objects are damaged and how many missing; cheap, by the index of the ill ones."""
    rows = session.execute(
        select(ObjectCheck.condition, func.count())
        .where(ObjectCheck.condition != Condition.OK)
        .group_by(ObjectCheck.condition)
    )
    return {Condition.DAMAGED: 0, Condition.MISSING: 0} | {row[0]: row[1] for row in rows}


def health(session: Session) -> Health:
    """Everything that pages and the doctor say about the archive's bytes."""
    found = counts(session)
    total = session.scalar(select(func.count()).select_from(_unreleased(0).subquery())) or 0
    checked, oldest = session.execute(select(func.count(), func.min(ObjectCheck.checked_at))).one()
    whole = session.scalar(select(func.max(Verification.started_at)).where(Verification.finished_at.is_not(None)))
    return Health(total, checked, found[Condition.DAMAGED], found[Condition.MISSING], oldest, whole)


def last_passes(session: Session, limit: int = 10) -> list[Verification]:
    """Passes, newest first."""
    return list(session.scalars(select(Verification).order_by(Verification.id.desc()).limit(limit)))


def current_pass(session: Session, every: timedelta) -> Verification | None:
    """The pass under way, or a new one when the last began at least ``every`` ago; None when none is due."""
    newest = session.scalar(select(Verification).order_by(Verification.id.desc()).limit(1))
    if newest is not None and newest.finished_at is None:
        return newest
    if newest is not None and now() - newest.started_at < every:
        return None
    last = session.scalar(select(func.max(Instance.id)))
    if last is None:
        return None
    begun = Verification(last=last)
    session.add(begun)
    session.flush()
    return begun


def advance(session: Session, of: Verification, reached: int, found: Mapping[int, Condition]) -> bool:
    """Move the pass on; False when another process has done so meanwhile."""
    conditions = list(found.values())
    moved = session.execute(
        update(Verification)
        .where(Verification.id == of.id, Verification.reached == of.reached)
        .values(
            reached=reached,
            checked=Verification.checked + len(conditions),
            damaged=Verification.damaged + conditions.count(Condition.DAMAGED),
            missing=Verification.missing + conditions.count(Condition.MISSING),
            finished_at=now() if reached >= of.last else None,
        )
        .execution_options(synchronize_session=False)
    )
    return bool(moved.rowcount)  # type: ignore[attr-defined]


def _unreleased(after_id: int) -> Select[Instance]:
    released = select(Release.instance_id).where(Release.instance_id == Instance.id).exists()
    return select(Instance).where(Instance.id > after_id, ~released)


def _due(after_id: int, since: datetime) -> Select[Instance]:
    return (
        _unreleased(after_id)
        .outerjoin(ObjectCheck, ObjectCheck.instance_id == Instance.id)
        .where(or_(ObjectCheck.checked_at.is_(None), ObjectCheck.checked_at < since))
    )


def _stored(session: Session, query: Select[Instance]) -> list[Stored]:
    columns = (Instance.id, Instance.sop_instance_uid, Instance.archive_key, Instance.sha256, Instance.size)
    return [Stored(*row) for row in session.execute(query.with_only_columns(*columns, maintain_column_froms=True))]


def _of(row: Instance) -> Stored:
    return Stored(row.id, row.sop_instance_uid, row.archive_key, row.sha256, row.size)
