"""Boxes that people draw, and marks that they say are none."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy.orm import Session

from service.db import audit, corrections, studies
from service.db.corrections import Box
from service.db.session import database
from service.db.tables import Correction, Role, User
from service.errors import NotAllowed, NotFound
from service.review import schemas, shaping
from service.review.deps import Account, Decider, Reviewer, note
from service.review.instances import Number, Uid, Version
from service.review.problems import PROBLEM_RESPONSES

router = APIRouter(tags=["corrections"], responses=PROBLEM_RESPONSES)

Id = Annotated[int, Path(ge=1, le=2**62)]


@router.post("/api/instances/{sop_instance_uid}/frames/{number}/corrections", status_code=201)
def correct(
    sop_instance_uid: Uid, number: Number, account: Decider, given: schemas.NewCorrection, sha256: Version = ""
) -> schemas.Corrections:
    """Draw a mark that the network missed, say that one of its marks is none, or both at once."""
    draws = given.kind is not None and given.box is not None
    if not draws and given.annotation is None:
        raise corrections.OutsideOfTheFrame(
            "Neither a box with its kind nor a mark was named.",
            cure="Send `kind` and `box`, or the id of the mark that is none as `annotation`.",
        )
    made = []
    with database().begin() as session:
        instance = studies.instance(session, sop_instance_uid, account.site, sha256)
        user = session.get_one(User, account.user.id)  # this session's: what is replaced is likely theirs, too
        if given.replaces is not None:
            replaced = _find(session, given.replaces, account)
            if replaced.instance.study_id != instance.study_id:
                raise NotFound(
                    "There is no such box in this study.", cure="It is one of another study: delete it there."
                )
            _take_back(session, replaced, account)
        if given.annotation is not None:
            made.append(corrections.reject(session, instance, number, user, given.annotation))
        if given.kind is not None and given.box is not None:
            made.append(corrections.draw(session, instance, number, user, given.kind, Box(*given.box)))
        studies.touch(session, instance.study)
        for each in made:
            action = "annotation.reject" if each.annotation_id else "annotation.draw"
            detail = {"frame": number, "kind": each.kind, "correction": each.id}
            audit.record(session, account.user.name, action, sop_instance_uid, account.address, detail)
        return schemas.Corrections(corrections=[shaping.correction(each) for each in made], next_after=None)


@router.delete("/api/corrections/{number}", status_code=204)
def take_back(number: Id, account: Decider) -> Response:
    """Take back what one said oneself; a reviewer may take back anybody's."""
    with database().begin() as session:
        said = _find(session, number, account)
        _take_back(session, said, account)
        studies.touch(session, said.instance.study)
    return Response(status_code=204)


@router.get("/api/corrections")
def list_corrections(
    account: Reviewer,
    after: Annotated[int, Query(ge=0, le=2**62, description="`next_after` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> schemas.Corrections:
    """What people said about marks, in the order in which they said it: what the network has to learn."""
    with database().read() as session:
        page = corrections.page(session, after, limit, account.site, account.second_reader)
    note(account, "corrections.view", "", {"rows": len(page)})
    return schemas.Corrections(
        corrections=[shaping.correction(each) for each in page],
        next_after=page[-1].id if len(page) == limit else None,
    )


def _find(session: Session, number: int, account: Account) -> Correction:
    return corrections.find(session, number, account.site, account.second_reader)


def _take_back(session: Session, said: Correction, account: Account) -> None:
    if said.user_id != account.user.id and not account.may(Role.REVIEWER):
        raise NotAllowed("This box is somebody else's.", cure=f"Ask {said.user.name}, or a reviewer.")
    corrections.withdraw(session, said)
    subject, detail = said.instance.sop_instance_uid, {"frame": said.frame, "correction": said.id}
    audit.record(session, account.user.name, "annotation.withdraw", subject, account.address, detail)
