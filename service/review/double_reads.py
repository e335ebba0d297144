"""Double reads: blinded second answers, and a third person's word where two differ."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.db import audit, double_reads, reviews, studies
from service.db.session import database
from service.db.tables import NOTE_LENGTH, Decision, DoubleRead, DoubleReadState, Reading, Study, Verdict
from service.errors import NotFound
from service.review.deps import Account, Decider, Reviewer
from service.review.problems import PROBLEM_RESPONSES
from service.review.schemas import Moment

router = APIRouter(prefix="/api/double-reads", tags=["double reads"], responses=PROBLEM_RESPONSES)

ADJUDICATED = "Adjudicated after a double read."


class BlindedImage(BaseModel):
    """An image as the second reader sees it: no marks, no score, no verdict."""

    sop_instance_uid: str
    instance_number: int | None
    number_of_frames: int
    image: str = Field(description="Address of its first frame.")


class Blinded(BaseModel):
    """A drawn study without anything that the machine or another reader said of it, nor who scanned it."""

    study_instance_uid: str
    description: str
    procedure: str
    body_part: str
    laterality: str
    study_date: date | None
    drawn_at: Moment
    images: list[BlindedImage] = []


class Answered(BaseModel):
    answer: Reading
    note: str


class Disagreement(Blinded):
    """The same with both answers, for the person who decides; ``version`` goes back with the decision."""

    answers: list[Answered]
    version: int


class Answer(BaseModel):
    answer: Reading
    note: str = Field("", max_length=NOTE_LENGTH)


class Word(Answer):
    version: int = Field(ge=0, le=2**31 - 1, description="The study's version that was looked at.")


class Progress(BaseModel):
    state: DoubleReadState


@router.get("")
def waiting(account: Decider, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[Blinded]:
    """Drawn studies that wait for this account's blinded answer, oldest first."""
    with database().read() as session:
        found = double_reads.waiting_for(session, account.user, account.site, limit)
        return [Blinded(**_brief(each.study, each)) for each in found]


@router.get("/disagreements")
def disagreements(account: Reviewer, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[Blinded]:
    """Studies on which two readers differ, for a third person, oldest first."""
    with database().read() as session:
        found = double_reads.disagreements(session, account.user, account.site, limit)
        return [Blinded(**_brief(each.study, each)) for each in found]


@router.get("/{study_instance_uid}")
def blinded(study_instance_uid: str, account: Decider) -> Blinded:
    """A study as its second reader sees it. 404 when it does not wait for this account's answer."""
    with database().begin() as session:
        study = studies.find(session, study_instance_uid, account.site)
        drawn = double_reads.of(session, study)
        if drawn is None or not double_reads.needs_second_read(session, study, account.user):
            raise NotFound("This study does not wait for an answer of yours.", cure="Take one from the list.")
        audit.record(session, account.user.name, "double_read.view", study_instance_uid, account.address)
        return Blinded(**_brief(study, drawn), images=_images(study))


@router.post("/{study_instance_uid}", status_code=201)
def answer(study_instance_uid: str, account: Decider, given: Answer) -> Progress:
    """Answer blinded: is everything there that is required? 409 when two readers have answered already."""
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        drawn = double_reads.answer(session, study, account.user, given.answer, given.note)
        audit.record(session, account.user.name, "double_read.answer", study_instance_uid, account.address)
        return Progress(state=drawn.state)


@router.get("/{study_instance_uid}/disagreement")
def disagreement(study_instance_uid: str, account: Reviewer) -> Disagreement:
    """A study with two answers that differ; whose they are is not said."""
    with database().begin() as session:
        study = studies.find(session, study_instance_uid, account.site)
        drawn = _disagreed(session, study, account)
        audit.record(session, account.user.name, "double_read.view", study_instance_uid, account.address)
        said = [Answered(answer=one, note=note) for one, note in double_reads.readers(drawn)]
        return Disagreement(**_brief(study, drawn), images=_images(study), answers=said, version=study.version)


@router.post("/{study_instance_uid}/adjudication", status_code=201)
def adjudicate(study_instance_uid: str, account: Reviewer, given: Word) -> Progress:
    """Decide between two answers; the word becomes the study's decision and outranks its verdict."""
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        drawn = double_reads.adjudicate(session, study, account.user, given.answer, given.note)
        decision = _decision(study.verdict, given.answer)
        if decision is not None:
            reason = reviews.OTHER if decision is Decision.OVERRIDE else ""
            note = given.note or ADJUDICATED
            reviews.decide(session, study, account.user, decision, reason, note, given.version)
        detail = {"answer": given.answer.value}
        audit.record(session, account.user.name, "double_read.adjudicate", study_instance_uid, account.address, detail)
        return Progress(state=drawn.state)


def _decision(verdict: Verdict | None, said: Reading) -> Decision | None:
    """The decision that makes the study count as the third person says; none where they cannot tell either."""
    if verdict is None or said is Reading.CANNOT_TELL:
        return None
    wanted = Verdict.COMPLIANT if said is Reading.COMPLETE else Verdict.NON_COMPLIANT
    confirmed = reviews.outranking(verdict, Decision.CONFIRM)
    return Decision.CONFIRM if confirmed is wanted else Decision.OVERRIDE


def _disagreed(session: Session, study: Study, account: Account) -> DoubleRead:
    drawn = double_reads.of(session, study)
    readers = (drawn.first_user_id, drawn.second_user_id) if drawn else ()
    if drawn is None or drawn.state is not DoubleReadState.DISAGREED or account.user.id in readers:
        raise NotFound("There is no disagreement for you to decide here.", cure="Take one from the list.")
    return drawn


def _brief(study: Study, drawn: DoubleRead) -> dict[str, object]:
    return {
        "study_instance_uid": study.study_instance_uid,
        "description": study.description,
        "procedure": study.procedure,
        "body_part": study.body_part,
        "laterality": study.laterality,
        "study_date": study.study_date,
        "drawn_at": drawn.drawn_at,
    }


def _images(study: Study) -> list[BlindedImage]:
    return [
        BlindedImage(
            sop_instance_uid=image.sop_instance_uid,
            instance_number=image.instance_number,
            number_of_frames=image.number_of_frames,
            image=f"/api/instances/{image.sop_instance_uid}/frames/1/image",
        )
        for image in study.instances
        if image.number_of_frames
    ]
