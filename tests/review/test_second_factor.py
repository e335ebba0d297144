"""The second factor: enrolment, sign-in, replay, recovery codes, and roles that must have one."""

import re
from collections.abc import Callable
from time import time

import pyotp
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.db import audit, second_factors, users
from service.db.session import Database
from service.db.tables import AuditEvent, Role, User
from service.review import auth, deps, second_factor
from service.settings import Settings

PASSWORD = "correct horse battery"


@pytest.fixture
def ann(db: Database) -> User:
    with db.begin() as session:
        return users.create_user(session, "ann", Role.REVIEWER, PASSWORD)


@pytest.fixture
def secret(db: Database, ann: User) -> str:
    """Ann's second factor, whose code of a minute ago was its first."""
    made = second_factor.new_secret()
    with db.begin() as session:
        second_factors.enrol(session, ann, second_factor.seal(ann, made), int(time()) // 30 - 2)
    return made


def enter(client: TestClient, name: str = "ann") -> str:
    """Name and password are right; returns the ticket for the code."""
    asked = client.post("/sign-in", data={"name": name, "password": PASSWORD, "next": "/flow"})
    assert asked.status_code == 200 and "set-cookie" not in asked.headers
    return re.search(r'name="ticket" value="([^"]+)"', asked.text)[1]


def show(client: TestClient, ticket: str, code: str):
    return client.post("/sign-in/code", data={"ticket": ticket, "code": code, "next": "/flow"})


def test_enrolment_needs_a_code_and_shows_recovery_codes_once(sign_in: Callable[..., TestClient], db: Database) -> None:
    browser = sign_in(Role.REVIEWER, "ann")
    page = browser.get("/profile/second-factor").text
    made = re.search(r'name="secret" value="([A-Z2-7]{32})"', page)[1]
    assert "data:image/svg+xml" in page
    wrong = browser.post("/profile/second-factor", data={"secret": made, "code": "000000"})
    assert wrong.status_code == 422 and made in wrong.text
    kept = browser.post("/profile/second-factor", data={"secret": made, "code": pyotp.TOTP(made).now()})
    assert kept.status_code == 200 and len(re.findall(r"<code>[a-z2-9-]{14}</code>", kept.text)) == 10
    with db.read() as session:
        user = users.get_user(session, "ann")
        assert user.totp_secret and made not in user.totp_secret and second_factor.unseal(user) == made
        assert session.scalar(select(AuditEvent).where(AuditEvent.action == "second_factor.add"))
    assert browser.post("/profile/second-factor", data={"secret": made, "code": "1"}).status_code == 403


def test_a_foreign_secret_is_not_kept(sign_in: Callable[..., TestClient]) -> None:
    weak = "AAAA"
    answer = sign_in().post("/profile/second-factor", data={"secret": weak, "code": "123456"})
    assert answer.status_code == 422


def test_the_password_alone_opens_nothing(client: TestClient, secret: str) -> None:
    ticket = enter(client)
    assert client.get("/flow").status_code == 303
    client.cookies.set(deps.COOKIE, ticket)
    assert client.get("/flow").status_code == 303
    client.cookies.clear()
    assert show(client, ticket, "000000").status_code == 403
    let_in = show(client, ticket, pyotp.TOTP(secret).now())
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/flow")
    assert client.get("/flow").status_code == 200


def test_a_code_and_a_ticket_work_once(client: TestClient, secret: str) -> None:
    code, ticket = pyotp.TOTP(secret).now(), enter(client)
    assert show(client, ticket, code).status_code == 303
    assert "too long" in show(TestClient(client.app), ticket, code).text
    other = TestClient(client.app, follow_redirects=False)
    assert show(other, enter(other), code).status_code == 403


def test_a_recovery_code_works_once(client: TestClient, db: Database, ann: User, secret: str) -> None:
    with db.begin() as session:
        code, *_ = second_factors.renew_recovery_codes(session, ann)
    assert show(client, enter(client), code.upper().replace("-", " ")).status_code == 303
    other = TestClient(client.app, follow_redirects=False)
    assert show(other, enter(other), code).status_code == 403
    with db.read() as session:
        assert second_factors.recovery_codes_left(session, ann) == 9


def test_wrong_codes_lock_the_account(client: TestClient, secret: str) -> None:
    client.app.state.attempts = auth.Attempts(1000)
    ticket = enter(client)
    for _ in range(users.LOCK_AFTER):
        show(client, ticket, "000000")
    assert "Locked until" in show(client, ticket, pyotp.TOTP(secret).now()).text


def test_a_one_time_link_asks_for_the_code_too(client: TestClient, db: Database, ann: User, secret: str) -> None:
    with db.begin() as session:
        link = users.make_one_time_sign_in(session, ann)
    asked = client.post("/sign-in/once", data={"token": link})
    assert asked.status_code == 200 and "Second factor" in asked.text and "set-cookie" not in asked.headers


def test_a_one_time_link_stands_in_for_a_lost_password_behind_a_code_too(
    client: TestClient, db: Database, ann: User, secret: str
) -> None:
    with db.begin() as session:
        link = users.make_one_time_sign_in(session, ann)
    asked = client.post("/sign-in/once", data={"token": link})
    ticket = re.search(r'name="ticket" value="([^"]+)"', asked.text)[1]
    assert show(client, ticket, "000000").status_code == 403
    assert show(client, ticket, pyotp.TOTP(secret).now()).status_code == 303
    assert "Current password" not in client.get("/profile").text
    form = {"password": "quite another horse", "csrf": deps.csrf_of(client.cookies[deps.COOKIE])}
    assert client.post("/profile/password", data=form).status_code == 303
    with db.read() as session:
        assert users.password_is_right(users.get_user(session, "ann"), "quite another horse")
        assert audit.search(session, action="sign_in")[0].detail == {"by": "link and code"}


def test_a_password_and_a_code_do_not_stand_in_for_the_password(
    client: TestClient, db: Database, ann: User, secret: str
) -> None:
    assert show(client, enter(client), pyotp.TOTP(secret).now()).status_code == 303
    assert "Current password" in client.get("/profile").text
    form = {"password": "quite another horse", "csrf": deps.csrf_of(client.cookies[deps.COOKIE])}
    assert client.post("/profile/password", data=form).status_code == 422
    with db.read() as session:
        assert audit.search(session, action="sign_in")[0].detail == {"by": "password and code"}


def test_a_sealed_secret_is_bound_to_its_account_and_the_key(db: Database, ann: User, secret: str) -> None:
    with db.begin() as session:
        bob = users.create_user(session, "bob", Role.REVIEWER, PASSWORD)
        bob.totp_secret = users.get_user(session, "ann").totp_secret
    with pytest.raises(second_factor.ConfigurationError):
        second_factor.unseal(bob)


def test_a_role_that_must_have_one_sees_nothing_before(
    sign_in: Callable[..., TestClient],
    token: Callable[..., TestClient],
    house: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(house, "second_factor_roles", "admin, reviewer")
    browser = sign_in(Role.REVIEWER)
    assert browser.get("/worklist").headers["location"] == "/profile/second-factor"
    assert browser.get("/api/studies").status_code == 403
    page = browser.get("/profile/second-factor").text
    made = re.search(r'name="secret" value="([A-Z2-7]{32})"', page)[1]
    browser.post("/profile/second-factor", data={"secret": made, "code": pyotp.TOTP(made).now()})
    assert browser.get("/worklist").status_code == 200
    assert sign_in(Role.SONOGRAPHER).get("/worklist").status_code == 200
    assert token(Role.REVIEWER).get("/api/studies").status_code == 200


def test_it_is_removed_by_its_owner_with_a_code_or_reset_by_an_administrator(
    sign_in: Callable[..., TestClient], db: Database, ann: User, secret: str
) -> None:
    browser = sign_in(Role.REVIEWER, "ann")
    assert browser.post("/profile/second-factor/remove", data={"code": "000000"}).status_code == 422
    assert browser.post("/profile/recovery-codes", data={"code": pyotp.TOTP(secret).now()}).status_code == 200
    sign_in(Role.ADMIN).post("/users/ann/reset-second-factor")
    with db.read() as session:
        assert users.get_user(session, "ann").totp_secret == ""
        assert second_factors.recovery_codes_left(session, ann) == 0
    assert browser.get("/worklist").status_code == 303


def test_a_person_changes_the_password_and_other_sessions_end(sign_in: Callable[..., TestClient], ann: User) -> None:
    here, elsewhere = sign_in(Role.REVIEWER, "ann"), sign_in(Role.REVIEWER, "ann")
    wrong = here.post("/profile/password", data={"current": "no", "password": "quite another horse"})
    assert wrong.status_code == 422
    changed = here.post("/profile/password", data={"current": PASSWORD, "password": "quite another horse"})
    assert changed.status_code == 303
    assert here.get("/profile").status_code == 200 and elsewhere.get("/profile").status_code == 303


def test_sessions_are_listed_and_ended_one_by_one(sign_in: Callable[..., TestClient], db: Database, ann: User) -> None:
    here, elsewhere, admin = sign_in(Role.REVIEWER, "ann"), sign_in(Role.REVIEWER, "ann"), sign_in(Role.ADMIN)
    with db.read() as session:
        second, first = (each.id for each in users.sessions_of(session, ann))
        other = users.sessions_of(session, users.get_user(session, "admin"))[0].id
    assert here.post(f"/profile/sessions/{other}/end").status_code == 404
    assert here.post(f"/profile/sessions/{second}/end").status_code == 303
    assert elsewhere.get("/profile").status_code == 303
    assert f"/users/ann/sessions/{first}/end" in admin.get("/users/ann").text
    assert admin.post(f"/users/ann/sessions/{first}/end").status_code == 303
    assert here.get("/profile").status_code == 303
