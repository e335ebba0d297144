"""What a version would say of the studies that are here, and judging them again by it, with progress and cancel."""

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from service.db import audit, reevaluations, rulebooks
from service.db.session import database
from service.db.tables import Reevaluation
from service.errors import RulebookError
from service.jobs import reevaluate
from service.review import reevaluations as api
from service.review.deps import Account, Admin, Reader
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES
from service.review.schemas import Id, Moment

router = APIRouter()

LAST_STUDIES = 2000


class WhatIf(BaseModel):
    """What a version would have said of studies, or said when it judged them again (``records``)."""

    id: int
    total: int
    done: int
    created_at: Moment
    finished: bool
    cancelled: bool = Field(False, description="Finished before its end: only the studies ``done`` were judged.")
    failed: int = Field(0, description="Studies that could not be judged; see the worker's log.")
    changes: dict[str, Any] = Field(description='{"compliant>non_compliant": {"count": n, "studies": [uid, …]}}')
    records: bool = Field(False, description="True: a re-evaluation, which writes the verdicts.")

    def newly(self, verdict: str) -> int:
        """Studies that would become this."""
        return sum(found["count"] for change, found in self.changes.items() if change.endswith(f">{verdict}"))

    def no_longer(self, verdict: str) -> int:
        """Studies that would be this no more."""
        return sum(found["count"] for change, found in self.changes.items() if change.startswith(f"{verdict}>"))


@router.post("/api/rulebooks/{number}/what-if", tags=["rule books"], responses=PROBLEM_RESPONSES, status_code=202)
def what_if(number: Id, account: Admin, last: Annotated[int, Query(ge=1, le=100_000)] = LAST_STUDIES) -> WhatIf:
    """Judge the last studies by this version in the background, without writing a verdict."""
    return told(_ask(account, number, last), account)


@router.get("/api/what-if/{number}", tags=["rule books"], responses=PROBLEM_RESPONSES)
def get_what_if(number: Id, account: Reader) -> WhatIf:
    """How far a what-if has come, and what it found."""
    with database().read() as session:
        return told(reevaluations.get(session, number), account)


@router.post("/rulebooks/{number}/what-if", include_in_schema=False)
def what_if_on_page(number: Id, account: Admin, activating: Annotated[bool, Form()] = False) -> Response:
    """Ask what this version would have flagged among the last studies."""
    asked = _ask(account, number, LAST_STUDIES)
    where = f"/rulebooks/{number}/activate?" if activating else f"/rulebooks?version={number}&"
    return RedirectResponse(f"{where}ask={asked.id}", status_code=303)


@router.post("/rulebooks/{number}/reevaluate", include_in_schema=False)
def reevaluate_on_page(
    number: Id,
    account: Admin,
    first_day: Annotated[date, Form()],
    last_day: Annotated[date, Form()],
) -> Response:
    """Judge the studies of these days again by this version, for good."""
    if last_day < first_day:
        raise RulebookError("The last day lies before the first.", cure="Go back and give the days in their order.")
    asked = api.ask(account, api.Wanted(rulebook=number, first_day=first_day, last_day=last_day))
    return RedirectResponse(f"/rulebooks?version={number}&ask={asked.id}", status_code=303)


@router.get("/what-if/{number}", include_in_schema=False)
def what_if_fragment(request: Request, number: Id, account: Reader) -> Response:
    """How far it has come: asked for every second by the page that waits for it."""
    with database().read() as session:
        asked = reevaluations.get(session, number)
    return render(request, "what_if_step.html", {"asked": told(asked, account)})


@router.post("/what-if/{number}/cancel", include_in_schema=False)
def cancel_what_if(request: Request, number: Id, account: Admin) -> Response:
    """Stop it; what was found, or written, so far stays."""
    api.cancel(number, account)
    return what_if_fragment(request, number, account)


def told(found: Reevaluation, account: Account) -> WhatIf:
    """Counts speak of the whole house; which studies are behind them is not for everybody."""
    return WhatIf(
        id=found.id,
        total=found.total,
        done=found.done,
        created_at=found.created_at,
        failed=found.failed,
        finished=found.finished_at is not None or found.cancelled_at is not None,
        cancelled=found.cancelled_at is not None,
        changes=api.named_to(account, found.changes),
        records=found.records,
    )


def _ask(account: Account, number: int, last: int) -> Reevaluation:
    with database().begin() as session:
        rulebooks.get(session, number)
        which = reevaluations.Range(last=last)
        asked = reevaluate.ask(session, number, which, account.user.name, records=False)
        audit.record(session, account.user.name, "rulebook.what_if", str(number), account.address)
    reevaluate.ring(asked.id)
    return asked
