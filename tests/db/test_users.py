"""Accounts and secrets."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from service.db import users
from service.db.session import Database
from service.db.tables import Credential, Role, User, now
from service.errors import Conflict, NotAllowed

PASSWORD = "correct horse battery"


def test_only_digests_of_secrets_are_kept(db: Database) -> None:
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.REVIEWER, PASSWORD)
        secrets = [
            users.open_session(session, user),
            users.make_one_time_sign_in(session, user),
            users.make_api_token(session, user, "robot"),
        ]
    with db.read() as session:
        kept = session.scalars(select(Credential.secret_sha256)).all()
        hashed = session.scalars(select(User.password_hash)).one()
    assert not set(kept) & set(secrets)
    assert hashed.startswith("$argon2id$") and PASSWORD not in hashed


def test_right_and_wrong_passwords(db: Database) -> None:
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.REVIEWER, PASSWORD)
        nobody = users.create_user(session, "robot", Role.VIEWER)
    assert users.password_is_right(user, PASSWORD)
    assert not users.password_is_right(user, PASSWORD + "!")
    assert not users.password_is_right(nobody, "")
    assert not users.password_is_right(None, PASSWORD)


@pytest.mark.parametrize("weak", ["short", "aaaaaaaaaaaaaaaa", "ann-is-my-name-here", "x" * 300])
def test_weak_passwords_are_refused(db: Database, weak: str) -> None:
    with db.begin() as session, pytest.raises(NotAllowed):
        users.create_user(session, "ann", Role.REVIEWER, weak)


@pytest.mark.parametrize("name", ["", " ann", "a b", "../x", "<b>", "a" * 65])
def test_odd_names_are_refused(db: Database, name: str) -> None:
    with db.begin() as session, pytest.raises(NotAllowed):
        users.create_user(session, name, Role.VIEWER)


def test_a_name_is_given_once(db: Database) -> None:
    with db.begin() as session:
        users.create_user(session, "ann", Role.VIEWER)
    with db.begin() as session, pytest.raises(Conflict):
        users.create_user(session, "ann", Role.ADMIN)


def test_ten_failures_lock_and_a_success_forgets_them(db: Database) -> None:
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.REVIEWER, PASSWORD)
    for _ in range(users.LOCK_AFTER - 1):
        with db.begin() as session:
            users.note_sign_in(session, user, right=False)
    with db.begin() as session:
        assert users.get_user(session, "ann").locked_until is None
        users.note_sign_in(session, user, right=True)
    for _ in range(users.LOCK_AFTER):
        with db.begin() as session:
            users.note_sign_in(session, user, right=False)
    with db.read() as session:
        locked = users.get_user(session, "ann").locked_until
    assert locked is not None and locked > now()


def test_a_one_time_sign_in_is_worth_one_sign_in(db: Database) -> None:
    with db.begin() as session:
        secret = users.make_one_time_sign_in(session, users.create_user(session, "ann", Role.VIEWER))
    with db.begin() as session:
        assert users.spend_one_time(session, secret).name == "ann"
    with db.begin() as session, pytest.raises(NotAllowed):
        users.spend_one_time(session, secret)


def test_an_old_one_time_sign_in_is_worth_nothing(db: Database) -> None:
    with db.begin() as session:
        secret = users.make_one_time_sign_in(session, users.create_user(session, "ann", Role.VIEWER))
        session.execute(update(Credential).values(expires_at=now() - timedelta(seconds=1)))
    with db.begin() as session, pytest.raises(NotAllowed):
        users.spend_one_time(session, secret)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("revoked_at", now()),
        ("expires_at", now() - timedelta(seconds=1)),
        ("last_seen_at", now() - timedelta(days=2)),
    ],
)
def test_a_session_ends_when_revoked_expired_or_idle(db: Database, column: str, value: object) -> None:
    with db.begin() as session:
        secret = users.open_session(session, users.create_user(session, "ann", Role.VIEWER))
        assert users.find_secret(session, secret, users.SESSION) is not None
        session.execute(update(Credential).values({column: value}))
    with db.read() as session:
        assert users.find_secret(session, secret, users.SESSION) is None


def test_a_secret_serves_one_purpose(db: Database) -> None:
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.VIEWER)
        secret = users.open_session(session, user)
        token = users.make_api_token(session, user)
        assert users.find_secret(session, secret, users.TOKEN) is None
        assert users.find_secret(session, token, users.SESSION) is None


def test_a_disabled_account_is_shut_out_at_once(db: Database) -> None:
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.VIEWER, PASSWORD)
        secret = users.open_session(session, user)
        user.disabled_at = now()
    with db.read() as session:
        assert users.find_secret(session, secret, users.SESSION) is None
    assert not users.password_is_right(user, PASSWORD)


def test_a_new_password_ends_the_sessions(db: Database) -> None:
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.VIEWER, PASSWORD)
        secret = users.open_session(session, user)
        users.set_password(session, user, "another horse battery")
    with db.read() as session:
        assert users.find_secret(session, secret, users.SESSION) is None
