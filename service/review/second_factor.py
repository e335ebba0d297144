"""The second factor: six digits of an authenticator (TOTP, RFC 6238) or a recovery code, after the password."""

import base64
import os
from time import time
from typing import Annotated

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import Form, Request, Response
from sqlalchemy.orm import Session

from service.db import audit, second_factors, users
from service.db.session import database
from service.db.tables import User
from service.errors import ConfigurationError
from service.review.deps import address_of, secret_key
from service.review.pages import render

STEP_S = 30
DRIFT = 1  # steps that a telephone's clock may be off
SECRET_BYTES = 20  # RFC 4226 4: 160 bits
NONCE_BYTES = 12
WRONG = "This code is not right, or was used before."


def new_secret() -> str:
    """A secret for an authenticator, in base32."""
    return base64.b32encode(os.urandom(SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Whether a form brings back what :func:`new_secret` made."""
    try:
        return len(base64.b32decode(text)) == SECRET_BYTES
    except ValueError:
        return False


def address_for(secret: str, name: str) -> str:
    """The otpauth:// address that an authenticator reads."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name="Sonomark")


def step_of(secret: str, code: str) -> int | None:
    """The time step whose code this is, now or one step beside; None when it is none."""
    given = code.replace(" ", "")
    here = int(time()) // STEP_S
    totp = pyotp.TOTP(secret)
    steps = range(here - DRIFT, here + DRIFT + 1)
    return next((step for step in steps if pyotp.utils.strings_equal(totp.generate_otp(step), given)), None)


def accepts(session: Session, user: User, code: str) -> bool:
    """Whether the code is the account's: of its authenticator, not used before, or one of its recovery codes."""
    step = step_of(unseal(user), code)
    if step is not None:
        return second_factors.accept_step(session, user, step)
    return second_factors.spend_recovery_code(session, user, code)


def seal(user: User, secret: str) -> str:
    """The secret as the database keeps it: 64 letters that are worth nothing without the house's secret key."""
    nonce = os.urandom(NONCE_BYTES)
    return base64.b64encode(nonce + _cipher().encrypt(nonce, base64.b32decode(secret), _owner(user))).decode()


def unseal(user: User) -> str:
    """The account's secret in base32; raises ConfigurationError when it was sealed with another key."""
    sealed = base64.b64decode(user.totp_secret)
    try:
        secret = _cipher().decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _owner(user))
    except InvalidTag as error:
        raise ConfigurationError(
            "The second factor of this account was made under another SONOMARK_SECRET_KEY.",
            cure="Ask an administrator to set the key back, or to reset the second factor.",
        ) from error
    return base64.b32encode(secret).decode()


def ask(request: Request, user: User, target: str, how: str) -> Response:
    """The password, or the link, was right: now the code."""
    with database().begin() as session:
        ticket = users.ask_second_factor(session, user, how)
    return render(request, "sign_in_code.html", {"ticket": ticket, "next": target, "problem": ""})


def refuse(request: Request, user: User, ticket: str, target: str) -> Response:
    """Count the wrong code as a wrong password, and ask again."""
    with database().begin() as session:
        users.note_sign_in(session, user, right=False)
        audit.record(session, user.name, "sign_in.refused", "", address_of(request), {"second_factor": "wrong"})
    context = {"ticket": ticket, "next": target, "problem": WRONG}
    return render(request, "sign_in_code.html", context, status=403)


def _cipher() -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, b"sonomark second factor").derive(secret_key()))


def _owner(user: User) -> bytes:
    """Binds a sealed secret to its account, so that it cannot be put into another one's row."""
    return f"user {user.id}".encode()


Code = Annotated[str, Form(max_length=32)]
