"""Decisions of people. Append-only: an undo is a further row, and the newest that stands outranks the verdict."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, joinedload

from service.db import decisions, deliveries, double_reads, overrides
from service.db.days import zone
from service.db.tables import NOTE_LENGTH, Decision, Draft, Hold, Review, Study, User, Verdict, VerdictRecord, now
from service.errors import Conflict, NotAllowed

HOLD_FOR = timedelta(minutes=15)  # a page that is open renews it; one that was left lets go


@dataclass(frozen=True)
class Reason:
    """Why a verdict is overridden or a retake asked for; ``key`` is the digit that chooses it."""

    key: str
    code: str
    words: str


OTHER = "other"
REASONS: dict[Decision, tuple[Reason, ...]] = {
    Decision.CONFIRM: (),
    Decision.OVERRIDE: (
        Reason("1", "present_missed", "It is there, the network missed it"),
        Reason("2", "other_frame", "It is on another frame"),
        Reason("3", "not_required", "Not required for this exam"),
        Reason("4", "in_header", "In the header or SR, not burned in"),
        Reason("5", "wrong_exam", "Wrong exam code"),
        Reason("6", "not_diagnostic", "Not a diagnostic frame"),
        Reason("9", OTHER, "Other (say what in the note)"),
    ),
    Decision.RETAKE: (
        Reason("1", "body_marker", "Body marker"),
        Reason("2", "calipers", "Calipers"),
        Reason("3", "color_box", "Colour box"),
        Reason("4", "laterality", "Wrong side or label"),
        Reason("5", "image_quality", "Image quality"),
        Reason("9", OTHER, "Other (say what in the note)"),
    ),
}


class UnknownReason(NotAllowed):
    """The reason is none of the decision's codes, or one that needs a note came without."""


class NoteNeeded(UnknownReason):
    """What is overridden weighs so much that the rule book wants to know why."""


def words_of(decision: Decision, code: str) -> str:
    """The reason in words."""
    return next((reason.words for reason in REASONS.get(decision, ()) if reason.code == code), code)


def outranking(verdict: Verdict | None, decision: Decision | None) -> Verdict | None:
    """What a study counts as once a person has decided: a flag is confirmed or cleared, a pass confirmed or doubted.

    An override says that the verdict is wrong, a retake that something is missing whatever the verdict says.
    """
    if decision is None or verdict is None:
        return verdict
    if decision is Decision.RETAKE:
        return Verdict.NON_COMPLIANT
    if verdict in (Verdict.NON_COMPLIANT, Verdict.INDETERMINATE):
        return Verdict.COMPLIANT if decision is Decision.OVERRIDE else Verdict.NON_COMPLIANT
    return Verdict.NON_COMPLIANT if decision is Decision.OVERRIDE else verdict


def decide(
    session: Session, study: Study, user: User, decision: Decision, reason: str, note: str, version: int
) -> Review:
    """Record a decision on the study as it stood at ``version``.

    Raises Conflict when the study has changed since, UnknownReason when the reason does not fit, NoteNeeded when what
    is overridden needs a note.
    """
    code = _code(decision, reason, note)
    grown = session.execute(
        update(Study)
        .where(Study.id == study.id, Study.version == version)
        .values(decision=decision, version=Study.version + 1)
        .execution_options(synchronize_session=False)
    )
    if grown.rowcount != 1:  # type: ignore[attr-defined]
        raise Conflict("The study was changed while you were reading.", cure="Look at it again and decide anew.")
    standing_verdict = session.scalar(
        select(VerdictRecord.id).where(
            VerdictRecord.study_id == study.id,
            VerdictRecord.instance_id.is_(None),
            VerdictRecord.superseded_at.is_(None),
        )
    )
    review = Review(
        study_id=study.id,
        verdict_id=standing_verdict,
        user_id=user.id,
        decision=decision,
        reason=code,
        note=note.strip(),
        study_version=version,
    )
    session.add(review)
    asks = _asks_second_reader(session, study, decision, review.note)
    double_reads.note_decision(session, study, user, outranking(study.verdict, decision), review.note, asks=asks)
    session.execute(delete(Draft).where(Draft.study_id == study.id, Draft.user_id == user.id))
    session.execute(delete(Hold).where(Hold.study_id == study.id, Hold.user_id == user.id))
    session.flush()
    if decision is Decision.RETAKE:
        deliveries.plan_rejection(session, study, review)
    return review


def withdraw(session: Session, study: Study, user: User) -> Review:
    """Take back the user's own decision if it is the one that stands; the one before it stands again."""
    _lock(session, study)
    left = standing(session, study)
    if not left or left[-1].user_id != user.id:
        raise Conflict("There is no decision of yours to take back here.", cure="Only the one who decided may undo it.")
    earlier = left[-2] if len(left) > 1 else None
    session.execute(
        update(Study)
        .where(Study.id == study.id)
        .values(decision=earlier.decision if earlier else None, version=Study.version + 1)
        .execution_options(synchronize_session=False)
    )
    review = Review(
        study_id=study.id,
        user_id=user.id,
        decision=Decision.WITHDRAW,
        study_version=study.version,
        note="",
        reason="",
    )
    session.add(review)
    double_reads.forget_decision(session, study, user)
    if earlier is not None and earlier.decision is Decision.OVERRIDE and overrides.weighty(session, study):
        counts_as = outranking(study.verdict, earlier.decision)
        double_reads.note_decision(session, study, earlier.user, counts_as, earlier.note, asks=True)
    if left[-1].decision is Decision.RETAKE:
        deliveries.withdraw_rejections(session, study)
    session.flush()
    return review


def history(session: Session, study: Study) -> list[Review]:
    """Every decision on the study, oldest first, each with its user."""
    query = select(Review).where(Review.study_id == study.id).options(joinedload(Review.user)).order_by(Review.id)
    return list(session.scalars(query))


def standing(session: Session, study: Study) -> list[Review]:
    """The decisions on the study that stand, see `decisions`, oldest first; the last one counts."""
    ids = {each.id for each in decisions.standing(session, Review.study_id == study.id).get(study.id, ())}
    return [review for review in history(session, study) if review.id in ids]


def hold(session: Session, study: Study, user: User, *, take_over: bool = False) -> Hold:
    """Take the study in hand, or renew one's hold. Raises Conflict when another person holds it."""
    at = now()
    _lock(session, study)  # where nobody holds it there is no other row to lock
    held = session.scalar(select(Hold).where(Hold.study_id == study.id).options(joinedload(Hold.user)))
    if held is None:
        held = Hold(study_id=study.id, user_id=user.id, since=at, expires_at=at + HOLD_FOR)
        session.add(held)
    elif held.user_id != user.id and held.expires_at > at and not take_over:
        raise Conflict(
            f"{held.user.name} holds this study since {held.since.astimezone(zone()):%H:%M}.",
            cure="Look only, or take over.",
        )
    else:
        if held.user_id != user.id or held.expires_at <= at:
            held.since = at
        held.user_id, held.expires_at = user.id, at + HOLD_FOR
    session.flush()
    return held


def release(session: Session, study: Study, user: User) -> None:
    """Let go of the study."""
    session.execute(delete(Hold).where(Hold.study_id == study.id, Hold.user_id == user.id))


def holders(session: Session) -> set[int]:
    """Ids of the users who hold a study."""
    return set(session.scalars(select(Hold.user_id).where(Hold.expires_at > now()).distinct()))


def holder(session: Session, study: Study) -> Hold | None:
    """Who has the study in hand now."""
    query = select(Hold).where(Hold.study_id == study.id, Hold.expires_at > now()).options(joinedload(Hold.user))
    return session.scalar(query)


def holder_of(session: Session, study_instance_uid: str) -> Hold | None:
    """The same of a study that is named by its UID."""
    named = select(Study.id).where(Study.study_instance_uid == study_instance_uid).scalar_subquery()
    return session.scalar(select(Hold).where(Hold.study_id == named, Hold.expires_at > now()))


def save_draft(session: Session, study: Study, user: User, note: str) -> Draft | None:
    """Keep what was typed; an empty note removes the draft."""
    if not note.strip():
        session.execute(delete(Draft).where(Draft.study_id == study.id, Draft.user_id == user.id))
        return None
    return session.merge(Draft(study_id=study.id, user_id=user.id, note=note[:NOTE_LENGTH], saved_at=now()))


def draft(session: Session, study: Study, user: User) -> Draft | None:
    """The user's unsent note on this study."""
    return session.get(Draft, (study.id, user.id))


def _lock(session: Session, study: Study) -> None:
    """Two people who act on one study in the same moment do so one after the other."""
    session.execute(select(Study.id).where(Study.id == study.id).with_for_update())


def _asks_second_reader(session: Session, study: Study, decision: Decision, note: str) -> bool:
    """Whether the decision overrides what nobody overrides alone; raises NoteNeeded when it does not say why."""
    heavy = overrides.weighty(session, study) if decision is Decision.OVERRIDE else []
    if heavy and not note:
        raise NoteNeeded(
            f"A {heavy[0].severity.value} requirement is missing by the rules: overriding it needs a note.",
            cure="Say in the note what you see; a second reader is asked then, who does not know of it.",
        )
    return bool(heavy)


def _code(decision: Decision, reason: str, note: str) -> str:
    """The reason's code, given as code or digit."""
    if decision not in REASONS:
        raise UnknownReason(
            f"{decision.value} is no review.", cure=f"Send one of {', '.join(each.value for each in REASONS)}."
        )
    offered = REASONS[decision]
    if not offered:
        return ""
    chosen = next((each for each in offered if reason in (each.code, each.key)), None)
    if chosen is None:
        raise UnknownReason(
            f"There is no such reason to {decision.value}.",
            cure=f"Choose one of {', '.join(each.code for each in offered)}.",
        )
    if chosen.code == OTHER and not note.strip():
        raise UnknownReason("This reason needs a note.", cure="Say in the note what it is.")
    return chosen.code
