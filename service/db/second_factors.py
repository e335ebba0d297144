"""The second factor of an account: a TOTP secret (sealed by the dashboard), and recovery codes that each work once."""

import hashlib
import re
import secrets

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service.db.tables import Credential, User, now

RECOVERY = "recovery"
RECOVERY_CODES = 10
CODE_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that people take for another
CODE_LENGTH = 12  # 59 bits: a plain SHA-256 of it is worth nothing to a thief


def enrol(session: Session, user: User, sealed: str, step: int) -> list[str]:
    """Give the account a second factor, first used at ``step``; returns its recovery codes, which nobody sees again."""
    row = session.get_one(User, user.id)
    row.totp_secret, row.totp_step = sealed, step
    return renew_recovery_codes(session, user)


def remove(session: Session, user: User) -> None:
    """Take the second factor and its recovery codes away."""
    row = session.get_one(User, user.id)
    row.totp_secret, row.totp_step = "", None
    _end_recovery_codes(session, user)


def accept_step(session: Session, user: User, step: int) -> bool:
    """Spend a code's time step: each is worth one sign-in (RFC 6238 5.2), however many try it at once."""
    newer = or_(User.totp_step.is_(None), User.totp_step < step)
    spent = session.execute(update(User).where(User.id == user.id, newer).values(totp_step=step))
    return bool(spent.rowcount == 1)  # type: ignore[attr-defined]


def renew_recovery_codes(session: Session, user: User) -> list[str]:
    """Ten new codes; the old ones are worth nothing any more."""
    _end_recovery_codes(session, user)
    codes = ["".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH)) for _ in range(RECOVERY_CODES)]
    session.add_all(
        Credential(user_id=user.id, purpose=RECOVERY, secret_sha256=_digest(user, code), label="recovery code")
        for code in codes
    )
    session.flush()
    return ["-".join(code[start : start + 4] for start in range(0, CODE_LENGTH, 4)) for code in codes]


def spend_recovery_code(session: Session, user: User, given: str) -> bool:
    """Whether this is one of the account's recovery codes; it is spent by that."""
    code = re.sub(r"[\s-]", "", given).lower()
    spent = session.execute(
        update(Credential)
        .where(
            Credential.secret_sha256 == _digest(user, code),
            Credential.purpose == RECOVERY,
            Credential.revoked_at.is_(None),
        )
        .values(revoked_at=now())
    )
    return bool(spent.rowcount == 1)  # type: ignore[attr-defined]


def recovery_codes_left(session: Session, user: User) -> int:
    """How many recovery codes are not spent yet."""
    left = select(func.count()).where(
        Credential.user_id == user.id, Credential.purpose == RECOVERY, Credential.revoked_at.is_(None)
    )
    return session.scalar(left) or 0


def _end_recovery_codes(session: Session, user: User) -> None:
    session.execute(
        update(Credential)
        .where(Credential.user_id == user.id, Credential.purpose == RECOVERY, Credential.revoked_at.is_(None))
        .values(revoked_at=now())
    )


def _digest(user: User, code: str) -> str:
    return hashlib.sha256(f"{user.id}:{code}".encode()).hexdigest()
