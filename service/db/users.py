"""Accounts, and the secrets by which clients show who they are. Of every secret only the SHA-256 is kept."""

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from service.db.tables import Credential, Role, User, now
from service.errors import Conflict, NotAllowed, NotFound
from service.settings import settings

WHOLE_HOUSE = (Role.ADMIN, Role.AUDITOR)  # speak for every site
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
MIN_PASSWORD = 12
MAX_PASSWORD = 256  # a longer one only buys an attacker argon2 time
LOCK_AFTER = 10
LOCK_FOR = timedelta(minutes=15)
ONE_TIME_FOR = timedelta(hours=1)
SECOND_FACTOR_FOR = timedelta(minutes=5)
SEEN_EVERY = timedelta(seconds=60)  # a session's last use is written at most this often

SESSION, TOKEN, ONE_TIME, SECOND_FACTOR = "session", "token", "one_time", "second_factor"
# "store" lets instances in by STOW-RS and shows nothing; each of the others includes the ones before it, and storing
# is part of "admin" alone.
SCOPES = ("store", "read", "review", "admin")

_hasher = PasswordHash((Argon2Hasher(),))

# Asked at every request, so it is built once.
_BY_SECRET = (
    select(Credential, User)
    .join(User, User.id == Credential.user_id)
    .where(Credential.secret_sha256 == bindparam("digest"), Credential.purpose == bindparam("for"))
)


class Shown(NamedTuple):
    """A secret that was shown and stands: whose it is and what it is for."""

    user: User
    credential: Credential


def create_user(session: Session, name: str, role: Role | str, password: str | None = None, site: str = "") -> User:
    """A new account; without a password it signs in by token or one-time link only."""
    if not NAME.fullmatch(name):
        raise NotAllowed(
            "A user name starts with a letter or digit and holds only letters, digits, dot, dash, underscore and @.",
            cure="Choose another name.",
        )
    if find_user(session, name) is not None:
        raise Conflict(f"There is a user {name} already.", cure="Choose another name.")
    require_fitting_site(Role(role), site)
    user = User(name=name, role=Role(role), site=site, password_hash=hash_password(name, password) if password else "")
    session.add(user)
    session.flush()
    return user


def require_fitting_site(role: Role, site: str) -> None:
    """Raises NotAllowed when a role that speaks for the whole house is to be bound to one site."""
    if site and role in WHOLE_HOUSE:
        raise NotAllowed(
            f"The role {role.value} speaks for every site and cannot be bound to one.",
            cure="Leave the site empty, or give another role.",
        )


def from_sso(session: Session, subject: str, name: str, role: Role, site: str) -> User:
    """The account of a person whom the identity provider vouches for, made on the first time.

    ``subject`` names issuer and person for good; name, role and site are what the provider says today. Raises
    NotAllowed when the account is disabled, and Conflict when a local account bears the name: it is never taken over.
    """
    user = session.scalar(select(User).where(User.sso_subject == _digest(subject)))
    if user is None:
        if find_user(session, name) is not None:
            raise Conflict(
                f"There is a local account {name}, which a sign-in from outside does not take over.",
                cure="Ask an administrator to disable it or to give one of the two another name.",
            )
        user = create_user(session, name, role, site=site)
        user.sso_subject = _digest(subject)
    if user.disabled_at is not None:
        raise NotAllowed("This account is disabled.", cure="Ask an administrator.")
    if (user.role, user.site) != (role, site):
        require_fitting_site(role, site)
        user.role, user.site = role, site
        revoke_all(session, user)
    session.flush()
    return user


def hash_password(name: str, password: str) -> str:
    """The argon2id hash of a password that is long enough and is not the user's name."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise NotAllowed(
            f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.", cure="Several words make a good one."
        )
    if name.lower() in password.lower() or len(set(password)) < 5:
        raise NotAllowed("This password is too easy to guess.", cure="Leave the user name out and vary the characters.")
    return _hasher.hash(password)


def set_password(session: Session, user: User, password: str, *, except_session: int | None = None) -> None:
    """Give the account a new password and end all its sessions but the one that it was changed in."""
    user.password_hash = hash_password(user.name, password)
    session.add(user)
    revoke_all(session, user, but=except_session)


def password_is_right(user: User | None, password: str) -> bool:
    """Whether the password is the account's. Takes as long for an account that does not exist."""
    known = user is not None and user.password_hash and user.disabled_at is None
    against = user.password_hash if user is not None and known else _nobodys_hash()
    return _hasher.verify(password[:MAX_PASSWORD], against) and bool(known)


def note_sign_in(session: Session, user: User, *, right: bool) -> None:
    """Count failures in a row; ten of them lock the account for a quarter of an hour."""
    if right:
        session.execute(update(User).where(User.id == user.id).values(failed_sign_ins=0, locked_until=None))
        return
    failed = User.failed_sign_ins + 1
    session.execute(update(User).where(User.id == user.id).values(failed_sign_ins=failed))
    session.execute(
        update(User)
        .where(User.id == user.id, User.failed_sign_ins >= LOCK_AFTER)
        .values(failed_sign_ins=0, locked_until=now() + LOCK_FOR)
    )


def find_user(session: Session, name: str) -> User | None:
    """The account of that name, whatever its state."""
    return session.scalar(select(User).where(User.name == name))


def get_user(session: Session, name: str) -> User:
    """The account of that name."""
    user = find_user(session, name)
    if user is None:
        raise NotFound(
            f"There is no user {name}.", cure="The page Users, or `sonomark user list`, says who has an account."
        )
    return user


def all_users(session: Session) -> list[User]:
    """Every account by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def prefer(session: Session, user_id: int, changes: dict[str, Any]) -> None:
    """Change some of an account's preferences; an empty value forgets one."""
    user = session.get_one(User, user_id)
    kept = {**user.preferences, **changes}
    user.preferences = {name: value for name, value in kept.items() if value not in ("", None)}


def anybody(session: Session) -> bool:
    """Whether there is an administrator who can sign in; if not, the house waits for its first one."""
    administrator = select(User.id).where(User.role == Role.ADMIN, User.disabled_at.is_(None)).limit(1)
    return session.scalar(administrator) is not None


def open_session(session: Session, user: User, address: str = "", how: str = "") -> str:
    """A new browser session, begun by ``how``; the returned secret goes into the cookie."""
    until = now() + timedelta(seconds=settings().session_absolute_s)
    return _issue(session, user, SESSION, until, label=how, address=address)


def ask_second_factor(session: Session, user: User, how: str) -> str:
    """A ticket, good for five minutes, for a person whose password or link was right and whose code is still to come;
    its label says how they began."""
    return _issue(session, user, SECOND_FACTOR, now() + SECOND_FACTOR_FOR, label=how)


def make_one_time_sign_in(session: Session, user: User) -> str:
    """A secret that signs the user in once, within the hour."""
    return _issue(session, user, ONE_TIME, now() + ONE_TIME_FOR)


def make_api_token(
    session: Session, user: User, label: str = "", scope: str = "review", expires_at: datetime | None = None
) -> str:
    """A bearer token that may do what both its scope and its owner's role allow."""
    if scope not in SCOPES:
        raise NotAllowed(f"There is no scope {scope}.", cure=f"Choose one of {', '.join(SCOPES)}.")
    return _issue(session, user, TOKEN, expires_at, label=label[:64], scope=scope)


def spend_one_time(session: Session, secret: str) -> User:
    """The user whose one-time secret this is; it is worth nothing afterwards, however many try at once."""
    spent = session.execute(
        update(Credential)
        .where(
            Credential.secret_sha256 == _digest(secret),
            Credential.purpose == ONE_TIME,
            Credential.revoked_at.is_(None),
            Credential.expires_at > now(),
        )
        .values(revoked_at=now())
    )
    if spent.rowcount != 1:  # type: ignore[attr-defined]
        raise NotAllowed("This sign-in link was used before or is older than an hour.", cure="Ask for a new one.")
    shown = session.scalars(select(Credential).where(Credential.secret_sha256 == _digest(secret))).one()
    if shown.user.disabled_at is not None:
        raise NotAllowed("This account is disabled.", cure="Ask an administrator.")
    return shown.user


def find_secret(session: Session, secret: str, purpose: str) -> Shown | None:
    """Whose secret this is, if it still stands: not revoked, not expired, not idle too long, its user not disabled."""
    row = session.execute(_BY_SECRET, {"digest": _digest(secret), "for": purpose}).one_or_none()
    if row is None:
        return None
    credential, user = row
    at = now()
    if credential.revoked_at is not None or user.disabled_at is not None:
        return None
    if credential.expires_at is not None and credential.expires_at <= at:
        return None
    if purpose == SESSION and credential.last_seen_at <= _idle_since():
        return None
    return Shown(user, credential)


def still_stands(session: Session, credential_id: int) -> bool:
    """Whether a session that was good when its stream began still is."""
    found = session.execute(
        select(Credential, User).join(User, User.id == Credential.user_id).where(Credential.id == credential_id)
    ).one_or_none()
    if found is None:
        return False
    credential, user = found
    expired = credential.expires_at is not None and credential.expires_at <= now()
    idle = credential.purpose == SESSION and credential.last_seen_at <= _idle_since()
    return credential.revoked_at is None and user.disabled_at is None and not expired and not idle


def is_stale(credential: Credential) -> bool:
    """Whether its last use should be written down again."""
    return credential.last_seen_at + SEEN_EVERY <= now()


def touch(session: Session, credential_id: int) -> None:
    """Write down that the secret was just used."""
    session.execute(update(Credential).where(Credential.id == credential_id).values(last_seen_at=now()))


def revoke(session: Session, credential_id: int) -> None:
    """End one session or token."""
    session.execute(
        update(Credential)
        .where(Credential.id == credential_id, Credential.revoked_at.is_(None))
        .values(revoked_at=now())
    )


def sessions_of(session: Session, user: User) -> list[Credential]:
    """The account's sessions that stand, newest first."""
    return [each for each in standing(session, SESSION) if each.user_id == user.id]


def revoke_all(session: Session, user: User, purpose: str = SESSION, but: int | None = None) -> None:
    """End every session (or every token) of an account, save the one with the id ``but``."""
    session.execute(
        update(Credential)
        .where(Credential.user_id == user.id, Credential.purpose == purpose, Credential.revoked_at.is_(None))
        .where(Credential.id != (but or 0))
        .values(revoked_at=now())
    )


def standing(session: Session, purpose: str) -> list[Credential]:
    """Every session or token that is neither revoked nor expired, nor a session idle too long; newest first."""
    idle = [Credential.last_seen_at > _idle_since()] if purpose == SESSION else []
    return list(
        session.scalars(
            select(Credential)
            .where(
                Credential.purpose == purpose,
                Credential.revoked_at.is_(None),
                func.coalesce(Credential.expires_at, now() + timedelta(days=1)) > now(),
                *idle,
            )
            .order_by(Credential.id.desc())
        )
    )


def _idle_since() -> datetime:
    """A session without a request since then has ended."""
    return now() - timedelta(seconds=settings().session_idle_s)


def _issue(
    session: Session,
    user: User,
    purpose: str,
    expires_at: datetime | None,
    *,
    label: str = "",
    scope: str = "",
    address: str = "",
) -> str:
    secret = secrets.token_urlsafe(32)
    session.add(
        Credential(
            user_id=user.id,
            purpose=purpose,
            secret_sha256=_digest(secret),
            label=label,
            scope=scope,
            address=address[:64],
            expires_at=expires_at,
        )
    )
    session.flush()
    return secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@lru_cache
def _nobodys_hash() -> str:
    """What a password is checked against when there is no such account, so that the answer takes as long."""
    return _hasher.hash(secrets.token_urlsafe(32))
