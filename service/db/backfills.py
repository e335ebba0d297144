"""Backfills: which days were listed, which studies were found, and which of them are here."""

from collections.abc import Iterable
from datetime import date

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import Backfill, BackfillState, BackfillStudy, Instance, now


def begin(session: Session, node: str, first_day: date, last_day: date, modality: str) -> Backfill:
    """The unfinished backfill of exactly these days, or a new one."""
    same = (Backfill.node == node, Backfill.first_day == first_day, Backfill.last_day == last_day)
    found = session.scalar(
        select(Backfill)
        .where(*same, Backfill.modality == modality, Backfill.finished_at.is_(None))
        .order_by(Backfill.id.desc())
        .limit(1)
    )
    if found is None:
        found = Backfill(node=node, first_day=first_day, last_day=last_day, modality=modality)
        session.add(found)
        session.flush()
    return found


def note_day(
    session: Session, backfill_id: int, day: date, study_instance_uids: Iterable[str], *, is_over: bool
) -> None:
    """The PACS has listed this day, for good if it ``is_over``."""
    for uid in sorted(set(study_instance_uids)):
        if session.get(BackfillStudy, (backfill_id, uid)) is None:
            session.add(BackfillStudy(backfill_id=backfill_id, study_instance_uid=uid, day=day))
    if is_over:
        session.get_one(Backfill, backfill_id).listed_to = day
    session.flush()


def unfinished(session: Session, backfill_id: int) -> list[str]:
    """Studies that are not done, in the order of their days."""
    query = select(BackfillStudy.study_instance_uid).where(
        BackfillStudy.backfill_id == backfill_id, BackfillStudy.state != BackfillState.DONE
    )
    return list(session.scalars(query.order_by(BackfillStudy.day, BackfillStudy.study_instance_uid)))


def note_study(
    session: Session, backfill_id: int, uid: str, state: BackfillState, instances: int, fetched: int, reason: str = ""
) -> None:
    """What became of one study in this run."""
    row = session.get_one(BackfillStudy, (backfill_id, uid))
    row.state, row.instances, row.reason = state, instances, reason
    row.fetched += fetched
    session.flush()


def finish(session: Session, backfill_id: int) -> bool:
    """Close the backfill when every study is done; whether it is."""
    if unfinished(session, backfill_id):
        return False
    session.get_one(Backfill, backfill_id).finished_at = now()
    return True


def stored_of(session: Session, sop_instance_uids: list[str]) -> set[str]:
    """Those of the instances that have a row here, whichever bytes; a released one counts: it is not wanted again."""
    return set(
        session.scalars(select(Instance.sop_instance_uid).where(Instance.sop_instance_uid.in_(sop_instance_uids)))
    )


def counts(session: Session, backfill_id: int) -> dict[BackfillState, int]:
    """How many studies are in each state."""
    rows = session.execute(
        select(BackfillStudy.state, func.count())
        .where(BackfillStudy.backfill_id == backfill_id)
        .group_by(BackfillStudy.state)
    )
    return {row[0]: row[1] for row in rows}
