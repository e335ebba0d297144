"""The audit trail to read and to verify. Looking at it is written down in it."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.db import audit
from service.db.session import database
from service.review.deps import Auditor, note
from service.review.pages import render

router = APIRouter(include_in_schema=False)

PAGE = 50

Text = Annotated[str, Query(max_length=128)]


@router.get("/audit")
def audit_page(
    request: Request,
    account: Auditor,
    actor: Text = "",
    action: Text = "",
    subject: Text = "",
    since: Annotated[str, Query(alias="from", max_length=10)] = "",
    until: Annotated[str, Query(alias="to", max_length=10)] = "",
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    verify: bool = False,
) -> Response:
    """Who saw or changed what, newest first."""
    with database().read() as session:
        found = audit.search(
            session,
            actor=actor,
            action=action,
            subject=subject,
            since=_midnight(since),
            until=_midnight(until, days=1),
            before=before,
            limit=PAGE + 1,
            second_reader=account.second_reader,
        )
        check = audit.verify(session) if verify else None
    note(account, "audit.verify" if verify else "audit.view")
    asked = {"actor": actor, "action": action, "subject": subject, "from": since, "to": until}
    context = {"events": found[:PAGE], "more": len(found) > PAGE, "asked": asked, "check": check}
    return render(request, "audit.html", context)


def _midnight(day: str, days: int = 0) -> datetime | None:
    try:
        return datetime.combine(date.fromisoformat(day), time(), UTC) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
