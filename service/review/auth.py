"""Signing in and out, and the first administrator of a new house."""

import hmac
import secrets
from collections import deque
from threading import Lock
from time import monotonic
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse

from service import logs
from service.db import audit, users
from service.db.session import database
from service.db.tables import Role, User, now
from service.errors import NotAllowed, SonomarkError
from service.review import second_factor, words
from service.review.deps import LINK, Account, address_of, cookie_name, keep_secret, somebody
from service.review.pages import render
from service.review.problems import TooMany
from service.settings import settings

router = APIRouter(include_in_schema=False)
log = logs.get(__name__)

ATTEMPTS_A_MINUTE = 10
WRONG = "User name or password is not right."  # never which

Somebody = Annotated[Account | None, Depends(somebody)]
Text = Annotated[str, Form(max_length=1024)]


class Attempts:
    """How often each address tried to sign in within the last minute."""

    def __init__(self, limit: int = ATTEMPTS_A_MINUTE) -> None:
        self.limit = limit
        self._tried: dict[str, deque[float]] = {}
        self._lock = Lock()

    def count(self, address: str) -> None:
        """One more; raises TooMany above the limit."""
        with self._lock:
            at = monotonic()
            for known in [known for known, times in self._tried.items() if times[-1] < at - 60]:
                del self._tried[known]
            times = self._tried.setdefault(address, deque(maxlen=self.limit + 1))
            while times and times[0] < at - 60:
                times.popleft()
            times.append(at)
            if len(times) > self.limit:
                raise TooMany("Too many attempts to sign in from this address.", cure="Wait a minute.")


@router.get("/sign-in", name="sign_in")
def sign_in_page(request: Request, account: Somebody, next: str = "/") -> Response:
    """The form; who is signed in already goes on."""
    if account is not None:
        return RedirectResponse(local(next), status_code=303)
    with database().read() as session:
        if not users.anybody(session):
            return RedirectResponse("/first-run", status_code=303)
    context = {"next": local(next), "problem": "", "name": "", "sso": sso_label()}
    return render(request, "sign_in.html", context)


@router.post("/sign-in")
def sign_in(request: Request, name: Text = "", password: Text = "", next: Text = "/") -> Response:
    """Check name and password; the answer takes as long for a name that does not exist."""
    request.app.state.attempts.count(address_of(request))
    with database().read() as session:
        user = users.find_user(session, name)
    right = users.password_is_right(user, password)
    if user is not None and user.locked_until is not None and user.locked_until > now():
        return _again(request, _locked(user) if right else WRONG, name, next)
    if user is None or not right:
        with database().begin() as session:
            if user is not None:
                users.note_sign_in(session, user, right=False)
            audit.record(session, "nobody" if user is None else user.name, "sign_in.refused", "", address_of(request))
        return _again(request, WRONG, name, next)
    if user.totp_secret:
        return second_factor.ask(request, user, local(next), "password")
    return let_in(request, user, next, "password")


@router.post("/sign-in/code")
def sign_in_code(request: Request, ticket: Text = "", code: Text = "", next: Text = "/") -> Response:
    """Check the second factor of whoever got its password or link right within the last five minutes."""
    request.app.state.attempts.count(address_of(request))
    with database().read() as session:
        shown = users.find_secret(session, ticket, users.SECOND_FACTOR)
    if shown is None:
        return _again(request, "That took too long. Begin again.", "", next)
    user, credential = shown
    if user.locked_until is not None and user.locked_until > now():
        return _again(request, _locked(user), user.name, next)
    with database().begin() as session:
        right = second_factor.accepts(session, user, code)
        if right:
            users.revoke(session, credential.id)
    if not right:
        return second_factor.refuse(request, user, ticket, local(next))
    return let_in(request, user, next, f"{credential.label} and code")


@router.get("/sign-in/once")
def once_page(request: Request, token: str = "") -> Response:
    """Ask before the link is spent: mail scanners and prefetching browsers open links, they do not press buttons."""
    return render(request, "sign_in_once.html", {"token": token, "problem": ""})


@router.post("/sign-in/once")
def once(request: Request, token: Text = "") -> Response:
    """Sign in by a one-time link."""
    request.app.state.attempts.count(address_of(request))
    try:
        with database().begin() as session:
            user = users.spend_one_time(session, token)
    except NotAllowed as error:
        return render(request, "sign_in_once.html", {"token": "", "problem": str(error)}, status=403)
    if user.totp_secret:
        return second_factor.ask(request, user, "/", LINK)
    return let_in(request, user, "/", LINK)


@router.post("/sign-out")
def sign_out(request: Request, account: Somebody) -> Response:
    """End this session, here and on the server."""
    answer = RedirectResponse("/sign-in", status_code=303)
    if account is not None and account.csrf:
        with database().begin() as session:
            users.revoke(session, account.credential.id)
            audit.record(session, account.user.name, "sign_out", "", account.address)
    answer.delete_cookie(cookie_name(request), path="/", secure=is_secure(request), httponly=True, samesite="lax")
    # Drafts that wait in the browser may hold patient data; caches too.
    answer.headers["Clear-Site-Data"] = '"storage"'
    return answer


@router.get("/first-run")
def first_run_page(request: Request) -> Response:
    """The form for the first administrator, as long as there is none."""
    with database().read() as session:
        if users.anybody(session):
            return RedirectResponse("/sign-in", status_code=303)
    announce_set_up()
    return render(request, "first_run.html", {"problem": "", "name": ""})


@router.post("/first-run")
def first_run(request: Request, code: Text = "", name: Text = "", password: Text = "") -> Response:
    """Make the first administrator for whoever can read this machine's log."""
    request.app.state.attempts.count(address_of(request))
    try:
        with database().begin() as session:
            if users.anybody(session):
                return RedirectResponse("/sign-in", status_code=303)
            if not hmac.compare_digest(code.strip().encode(), set_up_code().encode()):
                raise NotAllowed("The set-up code is not right.", cure="It stands in the dashboard's log.")
            user = users.create_user(session, name.strip(), Role.ADMIN, password or " ")
            audit.record(session, user.name, "user.first", user.name, address_of(request))
    except SonomarkError as error:
        return render(request, "first_run.html", {"problem": str(error), "name": name}, status=422)
    (settings().data_dir / "set-up-code").unlink(missing_ok=True)
    return let_in(request, user, "/", "password")


def sso_label() -> str:
    """What the button of the single sign-on says; empty without one."""
    return settings().oidc_label if settings().oidc_issuer else ""


def set_up_code() -> str:
    """The code that proves access to this machine; the same for every dashboard process of the house."""
    kept = settings().data_dir / "set-up-code"
    keep_secret(kept, f"{secrets.token_hex(3)}-{secrets.token_hex(3)}")
    return kept.read_text()


def announce_set_up() -> None:
    """Write the set-up code to the log: the house has no administrator yet."""
    log.warning("no administrator yet: open /first-run", set_up_code=set_up_code())


def local(target: str) -> str:
    """The address to go on to, if it is one of ours; no sign-in form sends anybody elsewhere."""
    parts = urlsplit(target)
    ours = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    printable = all(" " < letter != "\\" for letter in target)
    return target if ours and printable else "/"


def let_in(request: Request, user: User, target: str, how: str) -> Response:
    """A new session for whoever has shown to be ``user``; the browser's old one ends."""
    with database().begin() as session:
        users.note_sign_in(session, user, right=True)
        before = users.find_secret(session, request.cookies.get(cookie_name(request), ""), users.SESSION)
        if before is not None:
            users.revoke(session, before.credential.id)
        secret = users.open_session(session, user, address_of(request), how)
        audit.record(session, user.name, "sign_in", user.name, address_of(request), {"by": how})
    answer = RedirectResponse(local(target), status_code=303)
    answer.set_cookie(
        cookie_name(request),
        secret,
        max_age=settings().session_absolute_s,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )
    return answer


def _locked(user: User) -> str:
    until = words.clock(user.locked_until) if user.locked_until is not None else ""
    return f"Locked until {until}. Ask an administrator to unlock."


def _again(request: Request, problem: str, name: str, target: str) -> Response:
    context = {"next": local(target), "problem": problem, "name": name, "sso": sso_label()}
    return render(request, "sign_in.html", context, status=403)


def is_secure(request: Request) -> bool:
    """Whether the request came by TLS, to this process or to its proxy."""
    return request.url.scheme == "https"
