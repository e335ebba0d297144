"""What routes ask for: who is there, what the account may do, and the audit of what it saw."""

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from secrets import token_urlsafe
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.db import audit, users
from service.db.session import database
from service.db.tables import Credential, Role, User
from service.errors import ConfigurationError, NotAllowed
from service.review.problems import SecondFactorNeeded, SignInNeeded
from service.review.security import stores
from service.settings import settings

COOKIE = "sonomark_session"
SSO = "sso"  # how a session began that an identity provider vouches for
LINK = "link"  # how one began that stands in for a lost password, alone or behind a code
REFRESHED = ("/flow", "/self-test", "/what-if/", "/session")
MIN_KEY = 32
KNOWN_KEYS = ("changeme", "change-me", "secret", "password", "sonomark", "default", "insecure")

# What each role may do; `rank` is the least role that may. The auditor's is beside the others: what a viewer reads, the
# reports, the legal holds and the audit trail, and no change (docs/security.md).
RANK = {Role.AUDITOR: 0, Role.VIEWER: 0, Role.SONOGRAPHER: 1, Role.REVIEWER: 2, Role.ADMIN: 3}
SCOPE_RANK = {"store": -1, "read": 0, "review": 2, "admin": 3}


def roles_that_must_enrol() -> set[Role]:
    """The setting SECOND_FACTOR_ROLES. Raises ConfigurationError where it names a role that there is not: of that one
    nobody would be asked."""
    named = filter(None, (each.strip() for each in settings().second_factor_roles.split(",")))
    try:
        return {Role(each) for each in named}
    except ValueError as error:
        raise ConfigurationError(
            "SONOMARK_SECOND_FACTOR_ROLES names a role that there is not.", cure=f"Roles are {', '.join(Role)}."
        ) from error


bearer = HTTPBearer(auto_error=False, description="A token of `sonomark user token`.")


@dataclass(frozen=True)
class Account:
    """Who makes this request."""

    user: User
    credential: Credential
    csrf: str
    address: str

    @property
    def rank(self) -> int:
        by_role = RANK[self.user.role]
        if self.credential.purpose == users.TOKEN:
            return min(by_role, SCOPE_RANK.get(self.credential.scope, 0))
        return by_role

    @property
    def site(self) -> str:
        """The institution this account is bound to; empty: all."""
        return self.user.site

    def may(self, role: Role) -> bool:
        """Whether the account may do what ``role`` may."""
        if role is Role.AUDITOR:
            return (self.user.role is Role.AUDITOR and self.rank >= 0) or self.rank >= RANK[Role.ADMIN]
        return self.rank >= RANK[role]

    @property
    def must_enrol(self) -> bool:
        """Whether this session needs a second factor first; whoever comes by SSO has shown it to the provider."""
        by_password = self.credential.purpose == users.SESSION and self.credential.label != SSO
        return by_password and self.user.role in roles_that_must_enrol() and not self.user.totp_secret

    @property
    def by_link(self) -> bool:
        """Whether this session began by a one-time link, which stands in for the current password."""
        return self.credential.label.partition(" ")[0] == LINK

    @property
    def decides(self) -> bool:
        return self.may(Role.SONOGRAPHER)

    @property
    def stores(self) -> bool:
        """Whether it may send instances in over HTTP."""
        by_token = self.credential.purpose == users.TOKEN
        return RANK[self.user.role] >= RANK[Role.SONOGRAPHER] and (
            not by_token or self.credential.scope in ("store", "admin")
        )

    @property
    def takes_over(self) -> bool:
        return self.may(Role.REVIEWER)

    @property
    def reports(self) -> bool:
        """Whether it reads the reports on everybody's work."""
        return self.may(Role.REVIEWER) or self.may(Role.AUDITOR)

    @property
    def second_reader(self) -> int | None:
        """The user, if they may be asked for a blinded second answer: a token of a lesser scope is still theirs."""
        return self.user.id if RANK[self.user.role] >= RANK[Role.SONOGRAPHER] else None

    @property
    def is_admin(self) -> bool:
        return self.may(Role.ADMIN)

    @property
    def audits(self) -> bool:
        return self.may(Role.AUDITOR)


@lru_cache
def secret_key() -> bytes:
    """The key that signs tokens: the setting, or one made on the first start and kept in DATA_DIR."""
    given = settings().secret_key
    if given:
        if len(given) < MIN_KEY or given.lower().strip("!.0123456789 ") in KNOWN_KEYS or len(set(given)) < 10:
            raise ConfigurationError(
                "SONOMARK_SECRET_KEY is too short or a well-known default.",
                cure="Set one of at least 32 random characters, or leave it empty to have one made.",
            )
        return given.encode()
    kept = settings().data_dir / "secret-key"
    keep_secret(kept, token_urlsafe(48))
    return kept.read_bytes().strip()


def keep_secret(path: Path, text: str) -> None:
    """Write the file whole and unreadable for others, unless it is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, prefix=".secret-") as file:  # made with mode 0600
        file.write(text)
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)


def csrf_of(secret: str) -> str:
    """The token that a form of this session carries."""
    return hmac.new(secret_key(), b"csrf:" + secret.encode(), hashlib.sha256).hexdigest()


def cookie_name(request: Request) -> str:
    """With TLS the name itself forbids other hosts and paths to set it."""
    return f"__Host-{COOKIE}" if request.url.scheme == "https" else COOKIE


def address_of(request: Request) -> str:
    """The address the request came from."""
    return request.client.host if request.client is not None else ""


def somebody(
    request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None
) -> Account | None:
    """Who is signed in, by bearer token or session cookie; None when nobody is."""
    if shown is not None:
        secret, purpose = shown.credentials, users.TOKEN
    else:
        secret, purpose = request.cookies.get(cookie_name(request), ""), users.SESSION
    if not secret:
        return None
    with database().read() as session:
        found = users.find_secret(session, secret, purpose)
    if found is None:
        return None
    if users.is_stale(found.credential) and not _asks_by_itself(request):
        with database().begin() as session:
            users.touch(session, found.credential.id)
    csrf = csrf_of(secret) if purpose == users.SESSION else ""
    account = Account(found.user, found.credential, csrf, address_of(request))
    request.state.account = account
    return account


def _asks_by_itself(request: Request) -> bool:
    """A piece of a page that refreshes itself is no sign of life, nor is the question whether the session still stands:
    nobody need sit before it."""
    by_script = request.headers.get("hx-request") == "true"
    return by_script and request.method == "GET" and request.url.path.startswith(REFRESHED)


async def genuine(request: Request, account: Annotated[Account | None, Depends(somebody)]) -> None:
    """A change made with a session cookie must carry that session's token; a bearer token is proof by itself."""
    if request.method in ("GET", "HEAD", "OPTIONS") or account is None or not account.csrf:
        return
    shown = request.headers.get("x-csrf-token", "")
    form_types = ("application/x-www-form-urlencoded", "multipart/form-data")
    if not shown and not stores(request.scope) and request.headers.get("content-type", "").startswith(form_types):
        shown = str((await request.form()).get("csrf", ""))
    if not hmac.compare_digest(shown, account.csrf):
        raise NotAllowed("The form is older than your sign-in.", cure="Load the page again and repeat it.")


def needs(*roles: Role, enrolling: bool = False) -> Callable[[Account | None], Awaitable[Account]]:
    """A dependency that lets through accounts that may do what one of these roles may; ``enrolling``: also before they
    have the second factor that their role needs."""

    async def allowed(account: Annotated[Account | None, Depends(somebody)]) -> Account:
        if account is None:
            raise SignInNeeded("Nobody is signed in.", cure="Sign in, or send a bearer token.")
        if not any(account.may(role) for role in roles):
            named = " or ".join(role.value for role in roles)
            raise NotAllowed(f"This needs the role {named}.", cure="Ask an administrator.")
        if account.must_enrol and not enrolling:
            raise SecondFactorNeeded("This role needs a second factor.", cure="Set it up in your profile.")
        return account

    return allowed


async def in_person(account: Annotated[Account, Depends(needs(Role.VIEWER, enrolling=True))]) -> Account:
    """A dependency that lets through people in a browser: with a password of its choice a token would be the whole
    account, beyond its scope and its last day."""
    if account.credential.purpose != users.SESSION:
        raise NotAllowed("A token does not change its owner's account.", cure="Sign in with a browser.")
    return account


async def sender(account: Annotated[Account | None, Depends(somebody)]) -> Account:
    """A dependency that lets through accounts and tokens that may store."""
    if account is None:
        raise SignInNeeded("Nobody is signed in.", cure="Send a bearer token of the scope store.")
    if account.must_enrol or not account.stores:
        raise NotAllowed("This needs the scope store.", cure="Ask an administrator for such a token.")
    return account


Reader = Annotated[Account, Depends(needs(Role.VIEWER))]
Person = Annotated[Account, Depends(needs(Role.VIEWER, enrolling=True))]  # on the pages about oneself
Oneself = Annotated[Account, Depends(in_person)]  # where these change something
Decider = Annotated[Account, Depends(needs(Role.SONOGRAPHER))]
Reviewer = Annotated[Account, Depends(needs(Role.REVIEWER))]
Reporter = Annotated[Account, Depends(needs(Role.REVIEWER, Role.AUDITOR))]
Admin = Annotated[Account, Depends(needs(Role.ADMIN))]
Auditor = Annotated[Account, Depends(needs(Role.AUDITOR))]


def note(account: Account, action: str, subject: str = "", detail: dict[str, Any] | None = None) -> None:
    """Audit in a transaction of its own: for views, which change nothing else."""
    with database().begin() as session:
        audit.record(session, account.user.name, action, subject, account.address, detail)
