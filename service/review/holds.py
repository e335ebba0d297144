"""Taking a study in hand, so that two people do not collide."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service.db import audit, reviews, studies
from service.db.session import database
from service.db.tables import Role
from service.errors import NotAllowed
from service.review.auth import local
from service.review.deps import Decider
from service.review.study import Uid

router = APIRouter(include_in_schema=False)

Back = Annotated[str, Form(max_length=2048)]


@router.post("/studies/{study_instance_uid}/hold")
def hold(
    request: Request,
    study_instance_uid: Uid,
    account: Decider,
    next: Back = "/",
    take_over: Annotated[bool, Form()] = False,
) -> Response:
    """Hold the study for a quarter of an hour; a reviewer may take it over from somebody else."""
    if take_over and not account.may(Role.REVIEWER):
        raise NotAllowed("Taking over needs the role reviewer.", cure="Ask whoever holds the study.")
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        reviews.hold(session, study, account.user, take_over=take_over)
        studies.touch(session, study)
        action = "study.take_over" if take_over else "study.hold"
        audit.record(session, account.user.name, action, study_instance_uid, account.address)
    return _back(request, next)


@router.post("/studies/{study_instance_uid}/release")
def release(request: Request, study_instance_uid: Uid, account: Decider, next: Back = "/") -> Response:
    """Let go."""
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        reviews.release(session, study, account.user)
        studies.touch(session, study)
        audit.record(session, account.user.name, "study.release", study_instance_uid, account.address)
    return _back(request, next)


def _back(request: Request, target: str) -> Response:
    """A form goes on to its page; a script stays where it is."""
    in_place = request.headers.get("hx-request") == "true"
    return Response(status_code=204) if in_place else RedirectResponse(local(target), status_code=303)
