"""Users, their roles, sessions and API tokens."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from service.db import audit, choices, second_factors, users
from service.db.session import database
from service.db.tables import Role, User, now
from service.errors import NotAllowed, NotFound, SonomarkError
from service.review.deps import Account, Admin
from service.review.pages import render
from service.review.schemas import Id
from service.settings import settings

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Form(max_length=256)]


@router.get("/users")
def users_page(request: Request, account: Admin) -> Response:
    """Every account with its state."""
    return _page(request)


@router.post("/users")
def add_user(
    request: Request, account: Admin, role: Annotated[Role, Form()], name: Text = "", site: Text = ""
) -> Response:
    """A new account; its owner gets a link that signs in once, and sets a password with it."""
    try:
        with database().begin() as session:
            user = users.create_user(session, name.strip(), role, site=site.strip())
            secret = users.make_one_time_sign_in(session, user)
            _note(session, account, "user.add", user, role=role.value, site=user.site)
    except SonomarkError as error:
        return _page(request, problem=str(error), given={"name": name, "role": role, "site": site}, status=422)
    return _page(request, link=str(request.url_for("once_page").include_query_params(token=secret)), whose=user.name)


@router.get("/users/{name}")
def user_page(request: Request, name: str, account: Admin) -> Response:
    """One account: role, site, second factor, and every session that stands."""
    with database().read() as session:
        user = users.get_user(session, name)
        context = {
            "user": user,
            "sessions": users.sessions_of(session, user),
            "tokens": [each for each in users.standing(session, users.TOKEN) if each.user_id == user.id],
            "codes_left": second_factors.recovery_codes_left(session, user),
            "roles": list(Role),
            "operators": choices.offered(session)["operator"],
            "at": now(),
        }
    return render(request, "user.html", context)


@router.post("/users/{name}/sessions/{number}/end")
def end_session(name: str, number: Id, account: Admin) -> Response:
    """End one session of an account at once."""
    with database().begin() as session:
        user = users.get_user(session, name)
        if number not in {each.id for each in users.sessions_of(session, user)}:
            raise NotFound("There is no such session.")
        users.revoke(session, number)
        _note(session, account, "session.end", user, id=number)
    return RedirectResponse(f"/users/{name}", status_code=303)


@router.post("/users/{name}/{change}")
def change_user(
    request: Request,
    name: str,
    change: str,
    account: Admin,
    role: Annotated[Role | None, Form()] = None,
    site: Text = "",
    operator: Annotated[str, Form(max_length=324)] = "",
) -> Response:
    """Disable, enable, unlock, end the sessions, give role and site or the name it scans under, reset the second
    factor, make a one-time link."""
    link = ""
    with database().begin() as session:
        user = users.get_user(session, name)
        if user.id == account.user.id and change in ("disable", "role"):
            raise NotAllowed("You cannot disable yourself or change your own role.", cure="Ask another administrator.")
        match change:
            case "disable":
                user.disabled_at = now()
                users.revoke_all(session, user)
            case "enable":
                user.disabled_at = None
            case "unlock":
                user.locked_until, user.failed_sign_ins = None, 0
            case "end-sessions":
                users.revoke_all(session, user)
            case "role" if role is not None:
                users.require_fitting_site(role, site.strip())
                user.role, user.site = role, site.strip()
                users.revoke_all(session, user)
            case "operator":
                user.operator_name = operator.strip() or None
            case "reset-second-factor":
                second_factors.remove(session, user)
                users.revoke_all(session, user)
            case "link":
                secret = users.make_one_time_sign_in(session, user)
                link = str(request.url_for("once_page").include_query_params(token=secret))
            case _:
                raise NotFound("There is no such change.")
        told = (
            {"role": role.value, "site": site}
            if role
            else {"operator": operator.strip()}
            if change == "operator"
            else {}
        )
        _note(session, account, f"user.{change}", user, **told)
    if link:
        return _page(request, link=link, whose=name)
    return RedirectResponse(f"/users/{name}", status_code=303)


@router.get("/tokens")
def tokens_page(request: Request, account: Admin) -> Response:
    """Every API token that stands."""
    return _tokens(request)


@router.post("/tokens")
def add_token(
    request: Request,
    account: Admin,
    name: Text,
    label: Annotated[str, Form(min_length=1, max_length=64)],
    scope: Annotated[str, Form(pattern=f"^({'|'.join(users.SCOPES)})$")],
    days: Annotated[int, Form(ge=1, le=730)],
) -> Response:
    """A bearer token, shown this once."""
    with database().begin() as session:
        user = users.get_user(session, name)
        secret = users.make_api_token(session, user, label, scope, now() + timedelta(days=days))
        _note(session, account, "token.add", user, label=label, scope=scope, days=days)
    return _tokens(request, secret)


@router.post("/tokens/{number}/revoke")
def revoke_token(number: Id, account: Admin) -> Response:
    """End a token at once."""
    with database().begin() as session:
        users.revoke(session, number)
        audit.record(session, account.user.name, "token.revoke", str(number), account.address)
    return RedirectResponse("/tokens", status_code=303)


def _page(
    request: Request,
    *,
    problem: str = "",
    given: dict[str, str] | None = None,
    link: str = "",
    whose: str = "",
    status: int = 200,
) -> Response:
    with database().read() as session:
        found = users.all_users(session)
        sessions = [each.user_id for each in users.standing(session, users.SESSION)]
    context = {
        "users": found,
        "sessions": {user.id: sessions.count(user.id) for user in found},
        "roles": list(Role),
        "problem": problem,
        "given": given or {},
        "link": link,
        "whose": whose,
        "at": now(),
        "must_enrol": settings().second_factor_roles,
    }
    return render(request, "users.html", context, status=status)


def _tokens(request: Request, secret: str = "") -> Response:
    with database().read() as session:
        names = {user.id: user.name for user in users.all_users(session)}
        tokens = users.standing(session, users.TOKEN)
    context = {"tokens": tokens, "names": names, "secret": secret, "scopes": users.SCOPES}
    return render(request, "tokens.html", context)


def _note(session: Session, account: Account, action: str, user: User, **detail: object) -> None:
    audit.record(session, account.user.name, action, user.name, account.address, detail)
