"""Notes that are not sent yet."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import JSONResponse

from service.db import reviews, studies
from service.db.session import database
from service.db.tables import NOTE_LENGTH
from service.review.deps import Decider
from service.review.study import Uid

router = APIRouter(include_in_schema=False)


@router.put("/studies/{study_instance_uid}/draft", status_code=204)
def save_draft(
    study_instance_uid: Uid,
    account: Decider,
    note: Annotated[str, Form(max_length=NOTE_LENGTH)] = "",
    was: Annotated[str, Form(max_length=NOTE_LENGTH, description="The note as this page knows it.")] = "",
) -> Response:
    """Keep what was typed; nobody but its writer ever sees it. A note that another page saved meanwhile answers 409."""
    with database().begin() as session:
        study = studies.brief(session, study_instance_uid, account.site)
        kept = reviews.draft(session, study, account.user)
        there = kept.note if kept else ""
        if there not in (_plain(was), _plain(note), ""):
            return JSONResponse({"note": there}, status_code=409)
        reviews.save_draft(session, study, account.user, _plain(note))
    return Response(status_code=204)


def _plain(text: str) -> str:
    """Forms send CR LF where the page's own script counts LF."""
    return text.replace("\r\n", "\n")
