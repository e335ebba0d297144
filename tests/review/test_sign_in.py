"""Signing in, signing out, and the first administrator."""

from datetime import datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.db import users
from service.db.session import Database
from service.db.tables import Credential, Role, now
from service.review import auth, deps
from service.settings import Settings

PASSWORD = "correct horse battery"


@pytest.fixture
def ann(db: Database) -> None:
    with db.begin() as session:
        users.create_user(session, "ann", Role.ADMIN, PASSWORD)


def enter(client: TestClient, password: str = PASSWORD, name: str = "ann", **more: str):
    return client.post("/sign-in", data={"name": name, "password": password, **more})


def test_a_page_sends_strangers_to_the_form_and_back(client: TestClient, ann: None) -> None:
    away = client.get("/worklist?tab=all&q=x")
    assert away.status_code == 303
    assert away.headers["location"].endswith("/sign-in?next=%2Fworklist%3Ftab%3Dall%26q%3Dx")
    back = enter(client, next="/worklist?tab=all&q=x")
    assert (back.status_code, back.headers["location"]) == (303, "/worklist?tab=all&q=x")
    assert client.get("/worklist").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: TestClient, ann: None) -> None:
    cookie = enter(client).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "Path=/" in cookie
    secure = TestClient(client.app, base_url="https://testserver", follow_redirects=False)
    cookie = enter(secure).headers["set-cookie"]
    assert cookie.startswith("__Host-") and "Secure" in cookie


def test_a_wrong_password_and_an_unknown_name_read_the_same(client: TestClient, ann: None) -> None:
    wrong, unknown = enter(client, "not it at all"), enter(client, name="nobody")
    assert wrong.status_code == unknown.status_code == 403
    assert auth.WRONG in wrong.text and auth.WRONG in unknown.text


def test_ten_wrong_passwords_lock_the_account(client: TestClient, ann: None, db: Database) -> None:
    client.app.state.attempts = auth.Attempts(1000)
    for _ in range(users.LOCK_AFTER):
        enter(client, "not it at all")
    locked = enter(client)
    assert locked.status_code == 403 and "Locked until" in locked.text
    assert "Locked until" not in enter(client, "not it at all").text


def test_many_attempts_from_one_address_are_slowed_down(client: TestClient, ann: None) -> None:
    answers = [enter(client, "not it at all", name=f"n{number}").status_code for number in range(11)]
    assert answers == [403] * 10 + [429]


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "evil", "/a\nb", "", "/ x"],
)
def test_sign_in_leads_nowhere_else(target: str) -> None:
    assert auth.local(target) == "/"


def test_signing_out_ends_the_session_on_the_server(client: TestClient, ann: None) -> None:
    enter(client)
    secret = client.cookies[deps.COOKIE]
    left = client.post("/sign-out", headers={"X-CSRF-Token": deps.csrf_of(secret)})
    assert left.headers["clear-site-data"] == '"storage"'
    client.cookies.set(deps.COOKIE, secret)
    assert client.get("/worklist").status_code == 303


def last_seen(db: Database, at: datetime | None = None) -> datetime:
    """When the one session was last used; ``at`` sets it."""
    with db.begin() as session:
        if at is not None:
            session.execute(update(Credential).values(last_seen_at=at))
        return session.scalars(select(Credential.last_seen_at)).one()


def test_a_page_that_asks_by_itself_keeps_no_session_alive(
    client: TestClient, ann: None, db: Database, house: Settings
) -> None:
    """Two tabs that nobody sits before kept each other's session alive until its absolute end."""
    enter(client)
    left = house.session_idle_s - 600
    before = last_seen(db, now() - timedelta(seconds=600))
    told = client.get("/session", headers={"HX-Request": "true"}).json()
    assert last_seen(db) == before
    assert left - 5 <= told["idle_s"] <= left, "what is left, not what there would be after a sign of life"


def test_who_asks_to_stay_stays(client: TestClient, ann: None, db: Database, house: Settings) -> None:
    enter(client)
    before = last_seen(db, now() - timedelta(seconds=600))
    told = client.get("/session?stay=true", headers={"HX-Request": "true"}).json()
    assert last_seen(db) > before + timedelta(seconds=590)
    assert told["idle_s"] > house.session_idle_s - 5


def test_a_one_time_link_is_not_spent_by_opening_it(client: TestClient, db: Database, ann: None) -> None:
    with db.begin() as session:
        token = users.make_one_time_sign_in(session, users.get_user(session, "ann"))
    for _ in range(3):
        assert client.get(f"/sign-in/once?token={token}").status_code == 200
    assert client.post("/sign-in/once", data={"token": token}).status_code == 303
    assert client.get("/worklist").status_code == 200
    again = TestClient(client.app).post("/sign-in/once", data={"token": token})
    assert again.status_code == 403 and "used before" in again.text


def test_a_new_house_asks_for_its_first_administrator(client: TestClient, db: Database, house: Settings) -> None:
    assert client.get("/sign-in").headers["location"] == "/first-run"
    assert client.get("/first-run").status_code == 200
    form = {"name": "boss", "password": PASSWORD}
    refused = client.post("/first-run", data={**form, "code": "guess"})
    assert refused.status_code == 422 and "set-up code is not right" in refused.text
    code = (house.data_dir / "set-up-code").read_text()
    weak = client.post("/first-run", data={**form, "code": code, "password": "short"})
    assert weak.status_code == 422
    made = client.post("/first-run", data={**form, "code": code})
    assert made.status_code == 303 and client.get("/worklist").status_code == 200
    assert not (house.data_dir / "set-up-code").exists()
    late = TestClient(client.app, follow_redirects=False).post("/first-run", data={**form, "name": "x", "code": code})
    assert late.headers["location"] == "/sign-in"
    with db.read() as session:
        assert [user.name for user in users.all_users(session)] == ["boss"]


def test_the_secret_key_is_made_once_and_only_for_us(house: Settings) -> None:
    deps.secret_key.cache_clear()
    key = deps.secret_key()
    deps.secret_key.cache_clear()
    assert deps.secret_key() == key and len(key) >= deps.MIN_KEY
    assert (house.data_dir / "secret-key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("weak", ["changeme", "secret" * 10, "a" * 64])
def test_a_default_secret_key_is_refused(weak: str, house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "secret_key", weak)
    deps.secret_key.cache_clear()
    with pytest.raises(deps.ConfigurationError):
        deps.secret_key()
    deps.secret_key.cache_clear()
