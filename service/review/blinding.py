"""Blinding: whoever is to give a second answer learns nothing of the first one, whichever route they ask.

Lists leave such studies out (`double_reads.open_to`); what names one of them, or one of its images, is refused here
before any route begins, so that a new route is safe before anybody thinks of it.
"""

from typing import Annotated

from anyio import to_thread
from fastapi import Depends, Request

from service.db import double_reads
from service.db.session import database
from service.errors import NotAllowed
from service.review.deps import Account, somebody

ANSWERED = "Another reader has answered this study: it is one of your second reads now."
# What tells nothing of the first reader: the question and the ways to it, the frame as displayed, one's own note and
# hold, the page's stream, which knows its reader, and the legal hold, which is no reader's word.
OPEN = (
    "/second-reads/{study_instance_uid}",
    "/api/double-reads/{study_instance_uid}",
    "/api/instances/{sop_instance_uid}/frames/{number}/image",
    "/studies/{study_instance_uid}",
    "/studies/{study_instance_uid}/ahead",
    "/studies/{study_instance_uid}/draft",
    "/studies/{study_instance_uid}/events",
    "/studies/{study_instance_uid}/release",
    "/api/studies/{study_instance_uid}/legal-hold",
)


class Blinded(NotAllowed):
    """The study awaits a blinded answer of this account."""

    cure = "Answer it there; afterwards it is open to you as any other."


async def sighted(request: Request, account: Annotated[Account | None, Depends(somebody)]) -> None:
    """A dependency of every route: refuses what would tell a second reader of the first."""
    study = request.path_params.get("study_instance_uid", "")
    image = request.path_params.get("sop_instance_uid", "")
    route = getattr(request.scope.get("route"), "path", "")
    if not (study or image) or route in OPEN or account is None or account.second_reader is None:
        return
    if await to_thread.run_sync(_is_blind, account.second_reader, study, image, account.site):
        raise Blinded(ANSWERED)


def _is_blind(reader: int, study: str, image: str, site: str) -> bool:
    with database().read() as session:
        return double_reads.is_named_blind(session, reader, study, image, site)
