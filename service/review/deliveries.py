"""The outbox as administrators see it: what waits, why, and what a person may do about it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from service.db import audit, deliveries
from service.db.session import database
from service.db.tables import Delivery, DeliveryKind, DeliveryState
from service.review.deps import Account, Admin
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES
from service.review.schemas import Id, Moment

router = APIRouter()
API: dict[str, Any] = {"tags": ["deliveries"], "responses": PROBLEM_RESPONSES}


SHOWN = 200
KINDS = {
    DeliveryKind.REPORT: "Structured report",
    DeliveryKind.SEGMENTATION: "Masks",
    DeliveryKind.REJECTION: "Rejection note",
    DeliveryKind.WEBHOOK: "Webhook",
    DeliveryKind.MAIL: "Mail",
}


class Sent(BaseModel):
    """One thing for one receiver."""

    id: int
    study_instance_uid: str
    kind: DeliveryKind
    target: str
    state: DeliveryState
    attempts: int
    reason: str
    cure: str
    created_at: Moment
    next_at: Moment | None
    ended_at: Moment | None


@router.get("/api/deliveries", **API)
def outbox(
    account: Admin, state: DeliveryState | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> list[Sent]:
    """What goes out to other systems, newest first; nothing that was refused is ever given up by itself."""
    with database().read() as session:
        return [_sent(each) for each in deliveries.newest(session, state, limit, account.second_reader, account.site)]


@router.post("/api/deliveries/{number}/retry", **API)
def retry(number: Id, account: Admin) -> Sent:
    """Try it now, also if it was cancelled."""
    return _changed(number, account, "retry")


@router.post("/api/deliveries/{number}/cancel", **API)
def cancel(number: Id, account: Admin) -> Sent:
    """Give it up."""
    return _changed(number, account, "cancel")


@router.get("/deliveries", include_in_schema=False)
def page(request: Request, account: Admin, state: DeliveryState | None = None) -> Response:
    """The outbox with the reason of everything that waits, and what may be done about it."""
    with database().read() as session:
        context = {
            "rows": deliveries.newest(session, state, SHOWN, account.second_reader, account.site),
            "at_most": SHOWN,
            "counts": deliveries.counts(session),
            "state": state,
            "targets": deliveries.targets(),
            "KINDS_SENT": KINDS,
        }
    return render(request, "deliveries.html", context)


@router.post("/deliveries/{number}/{change}", include_in_schema=False)
def change_on_page(number: Id, change: Literal["retry", "cancel"], account: Admin) -> Response:
    """Try it now, or give it up."""
    _changed(number, account, change)
    return RedirectResponse("/deliveries?state=waiting", status_code=303)


def _changed(number: int, account: Account, change: str) -> Sent:
    with database().begin() as session:
        change_it = deliveries.retry if change == "retry" else deliveries.cancel
        found = change_it(session, number, account.second_reader, account.site)
        audit.record(session, account.user.name, f"delivery.{change}", str(number), account.address)
        return _sent(found)


def _sent(of: Delivery) -> Sent:
    return Sent(
        id=of.id,
        study_instance_uid=of.study.study_instance_uid,
        kind=of.kind,
        target=of.target,
        state=of.state,
        attempts=of.attempts,
        reason=of.reason,
        cure=of.cure,
        created_at=of.created_at,
        next_at=of.next_at if of.state is DeliveryState.WAITING else None,
        ended_at=of.ended_at,
    )
