"""The archive as administrators see it: whether the bytes are well, what a policy would release, what is on hold."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service.archive import policy as policies
from service.archive.retention import outlook
from service.archive.verify import CURE
from service.db import checks, retention
from service.db.session import database
from service.errors import Conflict, NotFound, PolicyError, SonomarkError
from service.review import retention as api
from service.review.deps import Admin
from service.review.pages import render
from service.review.schemas import Id

router = APIRouter(include_in_schema=False)

SHOWN = 50  # of damaged objects and of studies that are due; the API lists them all
EXAMPLE = """name = "hospital"

[[rules]]
name = "complete studies"
keep_days = 730
verdicts = ["compliant", "not_applicable"]
"""

Uid = Annotated[str, Form(pattern=r"^\s*[0-9.]{1,64}\s*$")]


@router.get("/archive")
def archive_page(request: Request, account: Admin, policy: Id | None = None) -> Response:
    """The bytes' health, the policy in force or the one that is looked at with its dry run, and legal holds."""
    return _page(request, policy)


@router.post("/archive/policies")
def keep_draft(request: Request, account: Admin, toml: Annotated[str, Form(max_length=100_000)]) -> Response:
    """Keep a policy as a draft, and show what it would release."""
    toml = toml.replace("\r\n", "\n")
    try:
        kept = api.put_policy(account, api.Draft(toml=toml))
    except PolicyError as error:
        return _page(request, None, toml=toml, problem=str(error), status=422)
    return RedirectResponse(f"/archive?policy={kept.id}", status_code=303)


@router.post("/archive/policies/{number}/activate")
def activate(
    request: Request,
    number: Id,
    account: Admin,
    expected_studies: Annotated[int, Form(ge=0)],
    typed: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Put a policy in force; its name is typed, and it may not release more than the dry run that was seen."""
    try:
        with database().read() as session:
            name = retention.get(session, number).name
        if typed.strip() != name:
            raise PolicyError("What was typed is not the policy's name.", cure=f"Type {name} to put it in force.")
        api.activate(number, account, api.Activation(expected_studies=expected_studies))
    except (PolicyError, Conflict) as error:
        return _page(request, number, problem=str(error), status=409 if isinstance(error, Conflict) else 422)
    return RedirectResponse("/archive", status_code=303)


@router.post("/archive/retire")
def retire(account: Admin) -> Response:
    """From now on everything is kept."""
    api.retire(account)
    return RedirectResponse("/archive", status_code=303)


@router.post("/archive/holds")
def place_hold(
    request: Request, account: Admin, uid: Uid, reason: Annotated[str, Form(max_length=2000)] = ""
) -> Response:
    """Keep a study's bytes whatever a policy says."""
    given = {"uid": uid.strip(), "reason": reason}
    if len(reason.strip()) < 3:
        return _page(request, None, problem="Say why the study is to be kept.", given=given, status=422)
    try:
        api.place_hold(uid.strip(), account, api.HoldRequest(reason=reason.strip()))
    except (NotFound, Conflict) as error:
        status = 409 if isinstance(error, Conflict) else 404
        return _page(request, None, problem=str(error), given=given, status=status)
    return RedirectResponse("/archive", status_code=303)


@router.post("/archive/holds/lift")
def lift_hold(request: Request, account: Admin, uid: Uid) -> Response:
    """Let the policy decide about the study again."""
    try:
        api.lift_hold(uid.strip(), account)
    except NotFound as error:
        return _page(request, None, problem=str(error), status=404)
    return RedirectResponse("/archive", status_code=303)


def _page(
    request: Request,
    number: int | None,
    *,
    toml: str | None = None,
    problem: str = "",
    given: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    with database().read() as session:
        in_force = retention.in_force(session)
        shown = retention.get(session, number) if number is not None else in_force
        context: dict[str, Any] = {
            "health": checks.health(session),
            "ill": checks.ill(session, SHOWN),
            "passes": checks.last_passes(session, 1),
            "policies": retention.policies(session),
            "in_force": in_force,
            "shown": shown,
            "holds": retention.standing_holds(session),
            "forecast": None,
        }
        try:
            context["forecast"] = outlook(session, policies.parse(shown.toml)) if shown else None
        except SonomarkError as error:  # an older house's policy
            problem = problem or str(error)
    context |= {
        "cure": CURE,
        "at_most": SHOWN,
        "toml": toml if toml is not None else shown.toml if shown else EXAMPLE,
        "problem": problem,
        "given": given or {},
    }
    return render(request, "archive.html", context, status=status)
