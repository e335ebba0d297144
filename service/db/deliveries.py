"""The outbox: what is to go out, to whom, how often it was tried. Rows are written where the decision is made."""

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import Text, cast, func, or_, select, update
from sqlalchemy.orm import Session, joinedload

from service.db import double_reads, verdicts
from service.db.tables import (
    Delivery,
    DeliveryKind,
    DeliveryState,
    Review,
    Study,
    Verdict,
    VerdictRecord,
    now,
)
from service.errors import NotFound
from service.settings import settings

LEASE = timedelta(minutes=5)  # longer than any one try; whoever dies with it is followed by another
FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
UNDO_FOR = timedelta(seconds=10)  # what a person's decision sends out waits so long, so that an undo is one
WAITING = DeliveryState.WAITING


def wanted() -> bool:
    """Whether anything is to go out at all."""
    return bool(_of_every_verdict() or _of_a_flag() or settings().rejections_to)


def plan_verdict(session: Session, study: Study, verdict: VerdictRecord) -> None:
    """Write what a new verdict on a study sends out; what an older one still had to send is overtaken.

    A self-test's study goes nowhere.
    """
    if study.synthetic:
        return
    targets = _of_every_verdict()
    if verdict.verdict is Verdict.NON_COMPLIANT:
        targets = targets + _of_a_flag()
    if targets or wanted():
        _overtake(session, study.id, exempt=DeliveryKind.REJECTION)
    for kind, target in targets:
        session.add(Delivery(study_id=study.id, verdict_id=verdict.id, kind=kind, target=target))
    session.flush()


def plan_anew(session: Session, study_ids: Collection[int]) -> None:
    """A re-evaluation gave these studies other verdicts. It sends nothing by itself; but what they still had to send
    would tell of verdicts that stand no longer, and tells of the new ones instead."""
    if not wanted():
        return
    of_these = Delivery.study_id.in_(study_ids), Delivery.kind != DeliveryKind.REJECTION, Delivery.state == WAITING
    for study_id in session.scalars(select(Delivery.study_id).where(*of_these).distinct()).all():
        standing = verdicts.standing(session, study_id)
        if standing is not None:
            plan_verdict(session, session.get_one(Study, study_id), standing)


def plan_rejection(session: Session, study: Study, review: Review) -> None:
    """A person asked for a retake: tell the PACS that the images are rejected, unless it is soon taken back."""
    if settings().rejections_to and review.verdict_id is not None and not study.synthetic:
        session.add(
            Delivery(
                study_id=study.id,
                verdict_id=review.verdict_id,
                review_id=review.id,
                kind=DeliveryKind.REJECTION,
                target=settings().rejections_to,
                next_at=now() + UNDO_FOR,
            )
        )
        session.flush()


def withdraw_rejections(session: Session, study: Study) -> None:
    """The retake was taken back: what has not gone out stays here."""
    session.execute(
        update(Delivery)
        .where(Delivery.study_id == study.id, Delivery.kind == DeliveryKind.REJECTION, Delivery.state == WAITING)
        .values(state=DeliveryState.OVERTAKEN, ended_at=now())
        .execution_options(synchronize_session=False)
    )


def claim(session: Session, limit: int, away: Collection[str] = ()) -> list[Delivery]:
    """Deliveries whose turn it is, each with its study; they are this caller's until the lease runs out.

    None of the targets that are known to be ``away``: what waits for them, thousands after a weekend, is in nobody
    else's way. The try is counted before it is made, so that one that kills its process is counted too.
    """
    at = now()
    # Nothing is ever put off for so long: what seems to be was written by a clock that was ahead then.
    its_turn = or_(Delivery.next_at <= at, Delivery.next_at > at + 2 * LONGEST_PAUSE)
    due = session.scalars(
        select(Delivery)
        .where(Delivery.state == WAITING, its_turn, Delivery.target.not_in(away))
        .order_by(Delivery.next_at, Delivery.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Delivery)
        .options(joinedload(Delivery.study))
    ).all()
    for delivery in due:
        delivery.attempts += 1
        delivery.next_at = at + LEASE
    session.flush()
    return list(due)


def hold(session: Session, delivery: Delivery) -> bool:
    """Whether it is still to be sent, by this caller, whose lease begins anew.

    Since it was claimed with others it may have been withdrawn or overtaken, or another process may have taken it.
    """
    held = session.execute(
        update(Delivery)
        .where(Delivery.id == delivery.id, Delivery.state == WAITING, Delivery.attempts == delivery.attempts)
        .values(next_at=now() + LEASE)
        .execution_options(synchronize_session=False)
    )
    return bool(held.rowcount)  # type: ignore[attr-defined]


def keep_objects(session: Session, delivery_id: int, keys: Sequence[str]) -> None:
    """Remember what was made for it."""
    session.get_one(Delivery, delivery_id).objects = list(keys)


def leaving_objects(session: Session, limit: int) -> list[Delivery]:
    """Deliveries that ended for good, long enough ago that nobody is at them any more, and what was made is still kept.

    One that a person gave up may be tried again, and then sends the very same.
    """
    ended = Delivery.state.in_((DeliveryState.DELIVERED, DeliveryState.OVERTAKEN)), Delivery.ended_at < now() - LEASE
    kept = cast(Delivery.objects, Text) != "[]"
    return list(session.scalars(select(Delivery).where(*ended, kept).order_by(Delivery.id).limit(limit)))


def delivered(session: Session, delivery_id: int) -> None:
    """It is there."""
    _end(session, delivery_id, DeliveryState.DELIVERED)


def failed(session: Session, delivery_id: int, reason: str, cure: str) -> None:
    """It is not: kept, with the reason, for a later try; the pauses grow from ten seconds to an hour."""
    delivery = session.get_one(Delivery, delivery_id)
    if delivery.state is WAITING:
        delivery.reason, delivery.cure = reason, cure
        delivery.next_at = now() + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(delivery.attempts - 1, 12))


def retry(session: Session, delivery_id: int, second_reader: int | None = None, site: str = "") -> Delivery:
    """A person asks for a try now, also of one that was cancelled."""
    delivery = _get(session, delivery_id, second_reader, site)
    if delivery.state in (WAITING, DeliveryState.CANCELLED):
        delivery.state, delivery.next_at, delivery.ended_at = WAITING, now(), None
    return delivery


def cancel(session: Session, delivery_id: int, second_reader: int | None = None, site: str = "") -> Delivery:
    """A person gives it up."""
    delivery = _get(session, delivery_id, second_reader, site)
    if delivery.state is WAITING:
        delivery.state, delivery.ended_at = DeliveryState.CANCELLED, now()
    return delivery


def newest(
    session: Session,
    state: DeliveryState | None = None,
    limit: int = 100,
    second_reader: int | None = None,
    site: str = "",
) -> list[Delivery]:
    """Deliveries, newest first, each with its study; a rejection would tell a blinded reader what was decided."""
    query = select(Delivery).join(Study, Study.id == Delivery.study_id).where(*double_reads.open_to(second_reader))
    query = query.where(Study.institution == site) if site else query
    query = query.options(joinedload(Delivery.study)).order_by(Delivery.id.desc()).limit(limit)
    return list(session.scalars(query.where(Delivery.state == state) if state else query))


def counts(session: Session) -> dict[DeliveryState, int]:
    """How many there are of each state, the waiting ones first."""
    found = session.execute(select(Delivery.state, func.count()).group_by(Delivery.state))
    counted = {state: count for state, count in found}  # noqa: C416
    return {state: counted.get(state, 0) for state in DeliveryState}


def targets() -> list[tuple[DeliveryKind, str]]:
    """What the settings send, and where it goes."""
    rejected = [(DeliveryKind.REJECTION, settings().rejections_to)] if settings().rejections_to else []
    return [*_of_every_verdict(), *rejected, *_of_a_flag()]


def verdict_of(session: Session, delivery: Delivery) -> VerdictRecord:
    """The verdict that is to be told, with its findings."""
    return session.get_one(VerdictRecord, delivery.verdict_id)


def review_of(session: Session, delivery: Delivery) -> Review | None:
    """The decision behind a rejection."""
    return session.get(Review, delivery.review_id) if delivery.review_id else None


def _of_every_verdict() -> list[tuple[DeliveryKind, str]]:
    asked = ((DeliveryKind.REPORT, settings().report_to), (DeliveryKind.SEGMENTATION, settings().masks_to))
    return [(kind, target) for kind, target in asked if target]


def _of_a_flag() -> list[tuple[DeliveryKind, str]]:
    asked = [(DeliveryKind.WEBHOOK, settings().webhook_url)]
    asked += [(DeliveryKind.MAIL, address.strip()) for address in settings().mail_to.split(",")]
    return [(kind, target) for kind, target in asked if target]


def _overtake(session: Session, study_id: int, exempt: DeliveryKind) -> None:
    session.execute(
        update(Delivery)
        .where(Delivery.study_id == study_id, Delivery.kind != exempt, Delivery.state == WAITING)
        .values(state=DeliveryState.OVERTAKEN, ended_at=now())
        .execution_options(synchronize_session=False)
    )


def _end(session: Session, delivery_id: int, state: DeliveryState) -> None:
    delivery = session.get_one(Delivery, delivery_id)
    delivery.state, delivery.ended_at, delivery.reason, delivery.cure = state, now(), "", ""


def _get(session: Session, delivery_id: int, second_reader: int | None, site: str) -> Delivery:
    delivery = session.get(Delivery, delivery_id)
    elsewhere = delivery is not None and site not in ("", delivery.study.institution)
    if delivery is None or elsewhere or double_reads.is_blind_for(session, delivery.study, second_reader):
        raise NotFound(f"There is no delivery {delivery_id}.")
    return delivery
