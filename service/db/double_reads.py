"""Double reads: a set share of studies gets a second, blinded answer, and a third person's where two differ.

Which studies these are follows from their UID alone, so that nobody chooses them and a second run draws the same.
Beside this sample come the overrides that a rule book wants read a second time; they are no sample, and counted apart.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session, joinedload

from service.db import decisions
from service.db.tables import (
    NOTE_LENGTH,
    Cause,
    DoubleRead,
    DoubleReadState,
    Instance,
    Reading,
    Study,
    User,
    Verdict,
    now,
)
from service.errors import Conflict, NotAllowed

_JUDGED = (Verdict.COMPLIANT, Verdict.NON_COMPLIANT, Verdict.INDETERMINATE)

_ANSWERS = {Verdict.COMPLIANT: Reading.COMPLETE, Verdict.NON_COMPLIANT: Reading.INCOMPLETE}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two readers' answers to one study, and what the machine said before either of them.

    ``waits`` for a third person's word, which ``adjudicated`` is; none is awaited where the decision that was one of
    two differing answers has ended.
    """

    first: Reading
    second: Reading
    verdict: Verdict | None
    adjudicated: Reading | None
    waits: bool


def is_drawn(study_instance_uid: str, share: float) -> bool:
    """Whether a study of this UID belongs to a sample of this share (0 to 1)."""
    digest = sha256(b"double read:" + study_instance_uid.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def draw(session: Session, study: Study, share: float) -> None:
    """Put a study that has just been judged into the sample if it belongs there; an earlier draw stands.

    Answers that were given before a later image came are about another study: an unfinished read begins anew.
    """
    drawn = _held(session, study)
    if drawn is not None:
        _forget_the_outdated(drawn, study)
    elif study.verdict in _JUDGED and not study.synthetic and is_drawn(study.study_instance_uid, share):
        session.add(DoubleRead(study_id=study.id))
        session.flush()


def of(session: Session, study: Study) -> DoubleRead | None:
    """The study's double read, None when it was not drawn."""
    return session.get(DoubleRead, study.id)


def needs_second_read(session: Session, study: Study, user: User) -> bool:
    """Whether this person may answer this study blinded: it was drawn, waits, and they have not answered yet.

    Until they have, they should see neither its verdict and findings nor anybody's decision.
    """
    drawn = of(session, study)
    return drawn is not None and drawn.state is DoubleReadState.WAITING and drawn.first_user_id != user.id


def awaiting(reader: int) -> Select[int]:
    """Ids of the studies that somebody has answered and that this user is to answer without knowing what was said."""
    return select(DoubleRead.study_id).where(
        DoubleRead.state == DoubleReadState.WAITING,
        DoubleRead.first_user_id.is_not(None),
        DoubleRead.first_user_id != reader,
    )


def open_to(reader: int | None) -> list[ColumnElement[bool]]:
    """The condition of every list of studies: none of them awaits this user's blinded answer. None: nobody's."""
    return [] if reader is None else [Study.id.not_in(awaiting(reader))]


def is_blind_for(session: Session, study: Study, reader: int | None) -> bool:
    """Whether the study awaits this user's blinded answer."""
    return reader is not None and session.scalar(awaiting(reader).where(DoubleRead.study_id == study.id)) is not None


def is_named_blind(session: Session, reader: int, study_uid: str = "", image_uid: str = "", site: str = "") -> bool:
    """The same of a study that is named by its own UID or by that of one of its images; within the site if given."""
    query = awaiting(reader).join(Study, Study.id == DoubleRead.study_id)
    if image_uid:
        query = query.join(Instance, Instance.study_id == Study.id).where(Instance.sop_instance_uid == image_uid)
    else:
        query = query.where(Study.study_instance_uid == study_uid)
    return session.scalar((query.where(Study.institution == site) if site else query).limit(1)) is not None


def first_readers(session: Session, limit: int = 2) -> set[int]:
    """Who gave the answers that a second one is awaited for; some of them, if there are more than the limit."""
    query = select(DoubleRead.first_user_id).where(DoubleRead.state == DoubleReadState.WAITING)
    known = query.where(DoubleRead.first_user_id.is_not(None)).distinct().limit(limit)
    return {user for user in session.scalars(known) if user is not None}


def withheld(session: Session, uids: Collection[str], reader: int) -> set[str]:
    """Those of the studies that await this user's blinded answer."""
    query = select(Study.study_instance_uid).where(Study.study_instance_uid.in_(uids), Study.id.in_(awaiting(reader)))
    return set(session.scalars(query))


def waiting_for(session: Session, user: User, site: str = "", limit: int = 50) -> list[DoubleRead]:
    """Drawn studies that wait for this person's answer, oldest first, each with its study."""
    return _listed(session, select(DoubleRead).where(_not_first(user)), DoubleReadState.WAITING, site, limit)


def count_waiting_for(session: Session, user: User, site: str = "", limit: int = 50) -> int:
    """How many drawn studies wait for this person's answer, counted to the limit."""
    return _counted(session, DoubleReadState.WAITING, [_not_first(user)], site, limit)


def disagreements(session: Session, user: User, site: str = "", limit: int = 50) -> list[DoubleRead]:
    """Studies on which two readers differ and this person was neither of them, oldest first."""
    return _listed(session, select(DoubleRead).where(*_neither(user)), DoubleReadState.DISAGREED, site, limit)


def count_disagreements(session: Session, user: User, site: str = "", limit: int = 50) -> int:
    """On how many studies two readers differ and this person was neither of them, counted to the limit."""
    return _counted(session, DoubleReadState.DISAGREED, _neither(user), site, limit)


def answer(session: Session, study: Study, user: User, said: Reading, note: str = "") -> DoubleRead:
    """A blinded answer. Raises NotAllowed when the study was not drawn, Conflict when it waits for nobody like them."""
    drawn = _locked(session, study)
    _forget_the_outdated(drawn, study)
    if drawn.state is not DoubleReadState.WAITING:
        raise Conflict("Two readers have answered this study already.", cure="Take the next one.")
    if drawn.first_user_id == user.id:
        raise Conflict("You have answered this study already.", cure="Somebody else gives the second answer.")
    if drawn.first_answer is None:
        _give_first(drawn, study, user, said, note, blinded=True)
    else:
        drawn.second_user_id, drawn.second_answer, drawn.second_at = user.id, said, now()
        drawn.second_note = note.strip()[:NOTE_LENGTH]
        agreed = drawn.first_answer is said
        drawn.state = DoubleReadState.DONE if agreed else DoubleReadState.DISAGREED
    session.flush()
    return drawn


def adjudicate(session: Session, study: Study, user: User, said: Reading, note: str = "") -> DoubleRead:
    """A third person's word on two answers that differ; Conflict when there is nothing to decide for this person."""
    # It becomes a decision: like every other one it takes the study first, so that none waits for it in a circle.
    session.execute(select(Study.id).where(Study.id == study.id).with_for_update())
    drawn = _locked(session, study)
    if drawn.state is not DoubleReadState.DISAGREED:
        raise Conflict("There is no disagreement to decide on this study.", cure="Load the list again.")
    if user.id in (drawn.first_user_id, drawn.second_user_id):
        raise NotAllowed("You were one of the two readers.", cure="A third person decides between them.")
    drawn.adjudicator_id, drawn.adjudicated_answer, drawn.adjudicated_at = user.id, said, now()
    drawn.adjudicated_note, drawn.state = note.strip()[:NOTE_LENGTH], DoubleReadState.DONE
    session.flush()
    return drawn


def note_decision(
    session: Session, study: Study, user: User, outcome: Verdict | None, note: str, *, asks: bool = False
) -> None:
    """An ordinary decision is the first answer to a drawn study, when nobody has given one.

    One that ``asks`` for a second reader puts its study up for reading, unless two readers have found the same
    already; the same person's next decision, if it does not ask, takes it away again.
    """
    drawn = _put_up(session, study) if asks else _held(session, study)
    said = _ANSWERS.get(outcome) if outcome is not None else None
    if drawn is None or drawn.state is not DoubleReadState.WAITING or said is None:
        return
    if drawn.cause is Cause.OVERRIDE and not asks:
        _drop(session, drawn)
        return
    _forget_the_outdated(drawn, study)
    if drawn.first_user_id in (None, user.id):
        _give_first(drawn, study, user, said, note, blinded=False)


def forget_decision(session: Session, study: Study, user: User) -> None:
    """The decision that was the first answer was taken back, and nobody has answered since."""
    drawn = _held(session, study)
    if drawn is None or drawn.state is not DoubleReadState.WAITING or drawn.first_blinded:
        return
    if drawn.first_user_id == user.id:
        _take_back(session, drawn)


def forget_decisions(session: Session, study_ids: Collection[int]) -> None:
    """The decisions on these studies no longer stand, so that none is the first answer of a read that waits.

    Where a second reader has seen it otherwise, nobody is asked any more who is right: both answers are kept.
    """
    waits = (DoubleRead.state != DoubleReadState.DONE, ~DoubleRead.first_blinded)
    query = select(DoubleRead).where(DoubleRead.study_id.in_(study_ids), *waits).order_by(DoubleRead.study_id)
    fresh = query.with_for_update().execution_options(populate_existing=True)
    for drawn in session.scalars(fresh).all():
        if drawn.state is DoubleReadState.DISAGREED:
            drawn.state, drawn.adjudicated_at = DoubleReadState.DONE, now()
        else:
            _take_back(session, drawn)
    session.flush()


def asked_for(session: Session, study: Study) -> DoubleRead | None:
    """The second reading that an override asked for; None when there is none."""
    drawn = of(session, study)
    return drawn if drawn is not None and drawn.cause is Cause.OVERRIDE else None


def answers(session: Session, study: Study) -> dict[str, str]:
    """What each reader of a finished double read said, for the audit trail before it begins anew."""
    drawn = of(session, study)
    if drawn is None or drawn.state is not DoubleReadState.DONE:
        return {}
    said = {"first": drawn.first_answer, "second": drawn.second_answer, "third": drawn.adjudicated_answer}
    return {reader: answer.value for reader, answer in said.items() if answer is not None}


def pairs(
    session: Session, start: datetime, end: datetime, as_of: datetime, site: str = "", cause: Cause = Cause.SAMPLE
) -> list[Pair]:
    """Complete double reads of this cause, of studies first received in the range, as known at ``as_of``."""
    rows = session.scalars(
        select(DoubleRead)
        .join(Study, Study.id == DoubleRead.study_id)
        .where(*_received(start, end, site), DoubleRead.cause == cause, DoubleRead.second_at <= as_of)
        .order_by(DoubleRead.study_id)
    )
    return [_pair(row, as_of) for row in rows]


def count_drawn(
    session: Session, start: datetime, end: datetime, as_of: datetime, site: str = "", cause: Cause = Cause.SAMPLE
) -> int:
    """How many studies of the range had been put up for this cause by then."""
    query = select(func.count()).select_from(DoubleRead).join(Study, Study.id == DoubleRead.study_id)
    known = (DoubleRead.cause == cause, DoubleRead.drawn_at <= as_of)
    return session.scalar(query.where(*_received(start, end, site), *known)) or 0


def _received(start: datetime, end: datetime, site: str) -> list[ColumnElement[bool]]:
    of_site = [Study.institution == site] if site else []
    return [Study.first_received_at >= start, Study.first_received_at < end, ~Study.synthetic, *of_site]


def _put_up(session: Session, study: Study) -> DoubleRead:
    """The study's double read for an override that asks for one; a finished one that found otherwise begins anew."""
    drawn = _held(session, study)
    if drawn is not None and drawn.state is DoubleReadState.DONE and not _found_complete(session, drawn, study):
        _drop(session, drawn)
        drawn = None
    if drawn is None:
        drawn = DoubleRead(study_id=study.id, cause=Cause.OVERRIDE, state=DoubleReadState.WAITING)
        session.add(drawn)
    return drawn


def _found_complete(session: Session, drawn: DoubleRead, study: Study) -> bool:
    """Whether the readers found the study complete, with the images that it has now and by what is asked of it now."""
    at = drawn.adjudicated_at or drawn.second_at
    word = drawn.adjudicated_answer if drawn.adjudicated_at else drawn.second_answer
    if word is not Reading.COMPLETE or at is None or at < study.last_received_at:
        return False
    return not decisions.changed_since(session, study, at)


def _take_back(session: Session, drawn: DoubleRead) -> None:
    """A decision is no first answer any longer; what was read because of it alone is read no more."""
    if drawn.cause is Cause.OVERRIDE:
        _drop(session, drawn)
    else:
        _forget_first(drawn)


def _drop(session: Session, drawn: DoubleRead) -> None:
    session.delete(drawn)
    session.flush()


def _not_first(user: User) -> ColumnElement[bool]:
    return DoubleRead.first_user_id.is_distinct_from(user.id)


def _neither(user: User) -> list[ColumnElement[bool]]:
    return [DoubleRead.first_user_id != user.id, DoubleRead.second_user_id != user.id]


def _counted(
    session: Session, state: DoubleReadState, whose: Sequence[ColumnElement[bool]], site: str, limit: int
) -> int:
    query = select(DoubleRead.study_id).where(DoubleRead.state == state, *whose)
    if site:
        query = query.join(Study, Study.id == DoubleRead.study_id).where(Study.institution == site)
    return session.scalar(select(func.count()).select_from(query.limit(limit).subquery())) or 0


def _listed(
    session: Session, query: Select[DoubleRead], state: DoubleReadState, site: str, limit: int
) -> list[DoubleRead]:
    query = query.join(Study, Study.id == DoubleRead.study_id).where(DoubleRead.state == state)
    if site:
        query = query.where(Study.institution == site)
    oldest_first = query.order_by(DoubleRead.drawn_at, DoubleRead.study_id).limit(limit)
    return list(session.scalars(oldest_first.options(joinedload(DoubleRead.study))))


def _held(session: Session, study: Study) -> DoubleRead | None:
    """The study's double read as it is now, which nobody else writes to until the transaction ends."""
    session.flush()
    return session.get(DoubleRead, study.id, with_for_update=True, populate_existing=True)


def _locked(session: Session, study: Study) -> DoubleRead:
    drawn = _held(session, study)
    if drawn is None:
        raise NotAllowed("This study is not read twice, or no longer.", cure="Review it as any other study.")
    return drawn


def _give_first(drawn: DoubleRead, study: Study, user: User, said: Reading, note: str, *, blinded: bool) -> None:
    drawn.first_user_id, drawn.first_answer, drawn.first_at = user.id, said, now()
    drawn.first_blinded, drawn.first_note, drawn.verdict = blinded, note.strip()[:NOTE_LENGTH], study.verdict


def _forget_first(drawn: DoubleRead) -> None:
    drawn.first_user_id = drawn.first_answer = drawn.first_at = drawn.verdict = None
    drawn.first_blinded, drawn.first_note = False, ""


def _forget_the_outdated(drawn: DoubleRead, study: Study) -> None:
    waits = drawn.state is DoubleReadState.WAITING and drawn.cause is Cause.SAMPLE  # an override stands until undone
    if waits and drawn.first_at is not None and drawn.first_at < study.last_received_at:
        _forget_first(drawn)


def _pair(row: DoubleRead, as_of: datetime) -> Pair:
    ended = row.adjudicated_at is not None and row.adjudicated_at <= as_of
    if row.first_answer is None or row.second_answer is None:
        raise ValueError("a double read with a second answer has a first one")
    waits = row.first_answer is not row.second_answer and not ended
    return Pair(row.first_answer, row.second_answer, row.verdict, row.adjudicated_answer if ended else None, waits)


def readers(drawn: DoubleRead) -> Sequence[tuple[Reading, str]]:
    """Both answers with their notes, for the person who decides between them; without names."""
    both = ((drawn.first_answer, drawn.first_note), (drawn.second_answer, drawn.second_note))
    return [(said, note) for said, note in both if said is not None]
