"""Flow: what became of every acknowledged instance, what is held back, and the switches that pause and drain."""

from collections import defaultdict
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service.db import analyses, audit, heartbeats, studies, switches
from service.db.session import database
from service.db.tables import Analysis
from service.errors import NotAllowed
from service.jobs import enqueue
from service.review import schemas
from service.review.deps import Admin, Reader, note
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES

router = APIRouter()

MOST_HELD = 500
Counted = tuple[dict[str, int | float], dict[str, int]]  # the equation, and the stages


@router.get("/api/flow", tags=["flow"], responses=PROBLEM_RESPONSES)
def get_flow(account: Reader) -> schemas.Flow:
    """acknowledged = terminal + in flight, at every moment."""
    with database().read() as session:
        return schemas.Flow.model_validate(analyses.flow(session))


@router.get("/flow", include_in_schema=False)
def flow_page(request: Request, account: Reader, requeued: int = 0) -> Response:
    """The equation, the stages, the workers, and the quarantine by reason."""
    fragment = request.headers.get("hx-request") == "true"
    flow, stages = request.app.state.flow.get("house", _count)
    with database().read() as session:
        context = {
            "flow": flow,
            "stages": stages,
            "alive": heartbeats.alive(session),
            "switches": switches.standing(session),
        }
        # The part that refreshes itself every two seconds shows none of the quarantine: nothing to audit.
        held = [] if fragment else studies.held_back(session, MOST_HELD + 1, account.site)
    if fragment:
        return render(request, "flow_now.html", context)
    more, held = len(held) > MOST_HELD, held[:MOST_HELD]
    if held:
        note(account, "quarantine.view")
    context |= {"groups": _by_reason(held), "held": len(held), "more": more, "requeued": requeued}
    return render(request, "flow.html", context)


@router.post("/flow/requeue", include_in_schema=False)
def requeue(
    request: Request, account: Admin, ids: Annotated[list[schemas.Id], Form(min_length=1, max_length=MOST_HELD)]
) -> Response:
    """Give quarantined instances another try, after their cause was removed."""
    with database().begin() as session:
        again = analyses.requeue(session, ids)
        audit.record(session, account.user.name, "quarantine.requeue", "", account.address, {"analyses": again})
    enqueue.ring(again)
    request.app.state.flow.forget()
    return RedirectResponse(f"/flow?requeued={len(again)}", status_code=303)


@router.post("/flow/switches/{name}", include_in_schema=False)
def switch(
    request: Request,
    name: Literal["paused", "draining"],
    account: Admin,
    on: Annotated[bool, Form()],
    reason: Annotated[str, Form(max_length=255)] = "",
) -> Response:
    """Pause the workers or drain the door, with the reason that everybody will read; or take that back."""
    if on and not reason.strip():
        raise NotAllowed("Say why: everybody who wonders will read it.", cure="Fill in the reason.")
    with database().begin() as session:
        if on:
            switches.turn_on(session, name, account.user.name, reason.strip())
        else:
            switches.turn_off(session, name)
        detail = {"on": on, "reason": reason.strip()}
        audit.record(session, account.user.name, f"switch.{name}", name, account.address, detail)
    request.app.state.banners.forget()
    return RedirectResponse("/flow", status_code=303)


def _count() -> Counted:
    with database().read() as session:
        return analyses.flow(session), analyses.stages(session)


def _by_reason(held: list[Analysis]) -> list[tuple[str, str, list[Analysis]]]:
    """(reason, cure, analyses), the most frequent reason first."""
    groups: dict[tuple[str, str], list[Analysis]] = defaultdict(list)
    for analysis in held:
        groups[analysis.reason, analysis.cure].append(analysis)
    return [(*reason, members) for reason, members in sorted(groups.items(), key=lambda each: -len(each[1]))]
