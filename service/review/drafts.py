"""Notes that are not sent yet."""

from typing import Annotated

from fastapi import APIRouter, Form, Response

from service.db import reviews, studies
from service.db.session import database
from service.review.deps import Decider
from service.review.study import Uid

router = APIRouter(include_in_schema=False)


@router.put("/studies/{study_instance_uid}/draft", status_code=204)
def save_draft(study_instance_uid: Uid, account: Decider, note: Annotated[str, Form(max_length=4000)] = "") -> Response:
    """Keep what was typed; nobody but its writer ever sees it."""
    with database().begin() as session:
        reviews.save_draft(session, studies.brief(session, study_instance_uid, account.site), account.user, note)
    return Response(status_code=204)
