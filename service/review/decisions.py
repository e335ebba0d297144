"""Decisions from the worklist: several studies at once, each of which this person has opened before."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.db import audit, double_reads, reviews, studies
from service.db.session import database
from service.db.tables import Decision, Study
from service.errors import Conflict, NotAllowed, NotFound
from service.review.deps import Account, Decider
from service.review.study import CHOICE, record_decision
from service.review.words import person

router = APIRouter(include_in_schema=False)

MOST = 100


class Chosen(BaseModel):
    """A row as it stood when it was chosen."""

    uid: str = Field(pattern=r"^[0-9.]{1,64}$")
    version: int = Field(ge=0, le=2**31 - 1)


class Asked(BaseModel):
    choice: Annotated[str, Field(pattern=CHOICE)]
    studies: list[Chosen] = Field(min_length=1, max_length=MOST)


class Refused(BaseModel):
    uid: str
    sentence: str


class Outcome(BaseModel):
    """What became of each: one that is refused holds no other up."""

    done: list[Chosen]
    refused: list[Refused]


@router.post("/worklist/decisions")
def decide_from_list(account: Decider, asked: Asked) -> Outcome:
    """Decide the chosen studies alike. What this person never opened is refused: nobody decides unseen."""
    named, _, reason = asked.choice.partition(":")
    decision = Decision(named)
    with database().read() as session:
        seen = audit.viewed(session, account.user.name, [each.uid for each in asked.studies])
    outcome = Outcome(done=[], refused=[])
    for each in asked.studies:
        try:
            with database().begin() as session:
                study = studies.brief(session, each.uid, account.site)
                if double_reads.is_blind_for(session, study, account.second_reader):
                    raise NotAllowed(f"{_name(study)} is one of your second reads.", cure="Answer it there.")
                if each.uid not in seen:
                    raise NotAllowed(
                        f"{_name(study)} was not decided, for you have not looked at it yet.",
                        cure="Open it once; then it can be decided from the list too.",
                    )
                record_decision(session, study, account, decision, reason, "", each.version)
                session.refresh(study, ["version"])
                outcome.done.append(Chosen(uid=each.uid, version=study.version))
        except (Conflict, NotAllowed, NotFound) as error:
            outcome.refused.append(Refused(uid=each.uid, sentence=_sentence(account, each.uid, error)))
    return outcome


def _sentence(account: Account, uid: str, error: Exception) -> str:
    """Whose study it is, and why it was not decided."""
    if not isinstance(error, Conflict | reviews.UnknownReason):
        return str(error)
    told = str(error)
    if isinstance(error, reviews.NoteNeeded):
        told = f"{error.what} Open it and say in its note what you see."
    with database().read() as session:
        try:
            return f"{_name(studies.brief(session, uid, account.site))}: {told}"
        except NotFound:
            return str(error)


def _name(study: Study) -> str:
    return person(study.patient_name) or "No name"
