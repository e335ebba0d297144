"""What a person may do to their own account: password, second factor, recovery codes, sessions."""

from typing import Annotated

import segno
from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from service.db import audit, second_factors, users
from service.db.session import database
from service.errors import NotAllowed, NotFound, SonomarkError
from service.review import second_factor
from service.review.deps import SSO, Account, Oneself, Person, address_of
from service.review.pages import render
from service.review.schemas import Id
from service.review.second_factor import Code

router = APIRouter(prefix="/profile", include_in_schema=False)

Text = Annotated[str, Form(max_length=1024)]


@router.get("")
def profile_page(request: Request, account: Person, done: str = "") -> Response:
    """The account with its second factor and its sessions."""
    return _page(request, account, done=done)


@router.post("/password")
def change_password(request: Request, account: Oneself, current: Text = "", password: Text = "") -> Response:
    """A new password. The old one is asked for, unless there is none or a one-time link stood in for it."""
    request.app.state.attempts.count(address_of(request))
    user = account.user
    try:
        if account.credential.label == SSO:
            raise NotAllowed("This account has no password here.", cure="Change it at your identity provider.")
        by_link = not user.password_hash or account.by_link
        if not by_link and not users.password_is_right(user, current):
            raise NotAllowed(
                "The current password is not right.",
                cure="Type it again; if it is lost, ask an administrator for a one-time link.",
            )
        with database().begin() as session:
            users.set_password(session, session.merge(user), password, except_session=account.credential.id)
            audit.record(session, user.name, "password.change", user.name, account.address)
    except SonomarkError as error:
        return _page(request, account, problem=str(error), status=422)
    return RedirectResponse("/profile?done=password", status_code=303)


@router.get("/second-factor")
def second_factor_page(request: Request, account: Person) -> Response:
    """A new secret as a picture for the authenticator; nothing is kept until a code proves that it arrived."""
    if account.user.totp_secret:
        return RedirectResponse("/profile", status_code=303)
    return _enrolment(request, account, second_factor.new_secret())


@router.post("/second-factor")
def enrol(request: Request, account: Oneself, secret: Text = "", code: Code = "") -> Response:
    """Keep the second factor once a code shows that the authenticator has it, and show the recovery codes."""
    request.app.state.attempts.count(address_of(request))
    if account.user.totp_secret:
        raise NotAllowed("This account has a second factor already.", cure="Remove it first.")
    if account.credential.label == SSO:
        raise NotAllowed("A second factor belongs to a password.", cure="Set it up at your identity provider.")
    if not second_factor.is_secret(secret):
        return _enrolment(request, account, second_factor.new_secret(), "That was no secret of ours. Scan this one.")
    step = second_factor.step_of(secret, code)
    if step is None:
        return _enrolment(request, account, secret, "This code is not right. Check your telephone's clock.")
    with database().begin() as session:
        codes = second_factors.enrol(session, account.user, second_factor.seal(account.user, secret), step)
        audit.record(session, account.user.name, "second_factor.add", account.user.name, account.address)
    return render(request, "recovery_codes.html", {"codes": codes})


@router.post("/second-factor/remove")
def remove(request: Request, account: Oneself, code: Code = "") -> Response:
    """Take the second factor away; a code proves that it is its owner who asks."""
    refusal = _prove(request, account, code)
    if refusal:
        return refusal
    with database().begin() as session:
        second_factors.remove(session, account.user)
        audit.record(session, account.user.name, "second_factor.remove", account.user.name, account.address)
    return RedirectResponse("/profile?done=removed", status_code=303)


@router.post("/recovery-codes")
def renew(request: Request, account: Oneself, code: Code = "") -> Response:
    """Ten new recovery codes in place of the old ones."""
    refusal = _prove(request, account, code)
    if refusal:
        return refusal
    with database().begin() as session:
        codes = second_factors.renew_recovery_codes(session, account.user)
        audit.record(session, account.user.name, "recovery_codes.renew", account.user.name, account.address)
    return render(request, "recovery_codes.html", {"codes": codes})


@router.post("/sessions/{number}/end")
def end_session(number: Id, account: Oneself) -> Response:
    """End one of the account's own sessions."""
    with database().begin() as session:
        if number not in {each.id for each in users.sessions_of(session, account.user)}:
            raise NotFound("There is no such session.")
        users.revoke(session, number)
        audit.record(session, account.user.name, "session.end", account.user.name, account.address, {"id": number})
    return RedirectResponse("/profile?done=session", status_code=303)


def _prove(request: Request, account: Account, code: str) -> Response | None:
    """None when the code is the account's; otherwise the page that says so, and the failure is counted."""
    request.app.state.attempts.count(address_of(request))
    if not account.user.totp_secret:
        raise NotFound("This account has no second factor.")
    with database().begin() as session:
        right = second_factor.accepts(session, account.user, code)
        if not right:
            users.note_sign_in(session, account.user, right=False)
    return None if right else _page(request, account, problem=second_factor.WRONG, status=422)


def _enrolment(request: Request, account: Account, secret: str, problem: str = "") -> Response:
    address = second_factor.address_for(secret, account.user.name)
    picture = segno.make(address, error="m").svg_data_uri(scale=4, border=2, dark="#000", light="#fff")
    context = {
        "secret": secret,
        "picture": picture,
        "problem": problem,
        "forced": account.must_enrol,
        "in_groups": " ".join(secret[start : start + 4] for start in range(0, len(secret), 4)),
    }
    return render(request, "second_factor.html", context, status=422 if problem else 200)


def _page(request: Request, account: Account, *, done: str = "", problem: str = "", status: int = 200) -> Response:
    with database().read() as session:
        context = {
            "sessions": users.sessions_of(session, account.user),
            "codes_left": second_factors.recovery_codes_left(session, account.user),
            "by_sso": account.credential.label == SSO,
            "ask_current": bool(account.user.password_hash) and not account.by_link,
            "here": account.credential.id,
            "done": done,
            "problem": problem,
        }
    return render(request, "profile.html", context, status=status)
