"""Attacks on the dashboard that need no browser; docs/security.md says which test answers which attack."""

import gzip
import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.db import audit, reviews, studies, users
from service.db.session import Database
from service.db.tables import AuditEvent, Decision, Role, User
from service.review import auth, deps
from service.review.app import create_app
from tests.review import ward

TRAVERSALS = (
    "/static/../app.py",
    "/static/..%2f..%2fsettings.py",
    "/static/%2e%2e/%2e%2e/cli/__init__.py",
    "/static//etc/passwd",
    "/static/..\\..\\settings.py",
    "/static/vendor/../../auth.py",
    "/api/instances/..%2f..%2fetc%2fpasswd/frames/1/image",
    "/studies/..%2f..%2fetc",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out_of_its_folder(reviewer: TestClient, path: str) -> None:
    """W6."""
    answer = reviewer.get(path)
    assert answer.status_code in (404, 422) and "def " not in answer.text and "root:" not in answer.text


@pytest.mark.parametrize("ranges", ["bytes=" + ",".join(f"{n}-" for n in range(5000)), "bytes=-1," * 3000])
def test_a_bomb_of_ranges_costs_nothing(client: TestClient, ranges: str) -> None:
    """W6: CVE-2025-62727. Nothing looks at them: the file comes whole."""
    whole = client.get("/static/sonomark.css")
    answer = client.get("/static/sonomark.css", headers={"Range": ranges})
    assert (answer.status_code, answer.content) == (200, whole.content)
    assert "Content-Range" not in answer.headers


def test_a_packed_body_is_not_unpacked(client: TestClient) -> None:
    """W6: a body of a gigabyte that says it is a megabyte."""
    bomb = gzip.compress(b"\0" * (64 << 20))
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/sign-in", content=bomb, headers=headers).status_code in (400, 403, 415, 422)


@pytest.mark.parametrize("length", ["99999999999", "-1", "1e9", "ten"])
def test_an_absurd_content_length_is_refused(client: TestClient, length: str) -> None:
    """W6: CVE-2026-5440."""
    answer = client.post("/sign-in", content=b"", headers={"Content-Length": length})
    assert answer.status_code == 413


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%", "_", "\\", "100%_", '"); DROP TABLE studies;--', "\0"])
def test_search_texts_are_only_texts(reviewer: TestClient, db: Database, text: str) -> None:
    """W7: what is typed is looked for as it stands; a wildcard matches nothing but itself."""
    ward.admit(db, 1)
    answer = reviewer.get("/api/studies", params={"q": text, "station": text, "operator": text})
    assert answer.status_code in (200, 422)
    assert answer.status_code == 422 or answer.json()["studies"] == []
    assert reviewer.get("/api/studies", params={"limit": "1000000000"}).status_code == 422


@pytest.fixture
def port(db: Database) -> Iterator[int]:
    """The dashboard behind a real socket."""
    deps.secret_key.cache_clear()
    config = uvicorn.Config(create_app(), port=0, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def test_silent_and_slow_clients_hold_nobody_up(port: int) -> None:
    """W8: sockets that say nothing, headers that never end, a body a byte at a time."""
    starts = (b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\n"
              b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 900000\r\n\r\nname=")  # fmt: skip
    sockets = []
    for number in range(300):
        held = socket.create_connection(("127.0.0.1", port), timeout=30)
        held.sendall(starts[number % 3])
        sockets.append(held)
    with httpx.Client(trust_env=False) as fresh:
        assert fresh.get(f"http://127.0.0.1:{port}/healthz", timeout=30).status_code == 200
        assert fresh.get(f"http://127.0.0.1:{port}/readyz", timeout=30).status_code == 200
    for held in sockets:
        held.close()


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SONOGRAPHER])
def test_a_form_where_instances_go_in_is_answered_before_it_has_come(port: int, db: Database, role: Role) -> None:
    """W6: the one body without a limit; read for its form token, it filled the disk whoever sent it."""
    with db.begin() as session:
        secret = users.open_session(session, users.create_user(session, "mallory", role))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(
            b"POST /dicomweb/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nCookie: "
            + f"{deps.COOKIE}={secret}".encode()
            + b'\r\n\r\n--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
            + bytes(1 << 16)
        )
        assert b" 403 " in line.recv(64)


def test_an_unknown_name_costs_as_much_as_a_known_one(db: Database) -> None:
    """W4: both ways argon2 runs exactly once, so that time tells nothing; counted, since time itself is noise."""
    with db.begin() as session:
        ann = users.create_user(session, "ann", Role.VIEWER, "correct horse battery")
        bob = users.create_user(session, "bob", Role.VIEWER)
    users.password_is_right(None, "warm")
    hashed: list[str] = []
    verify = users._hasher.verify

    def counted(password: str, against: str) -> bool:
        hashed.append(against)
        return verify(password, against)

    users._hasher.verify = counted  # type: ignore[method-assign]
    try:
        for who in (ann, bob, None):
            hashed.clear()
            assert not users.password_is_right(who, "not it at all")
            assert len(hashed) == 1 and hashed[0].startswith("$argon2id$")
    finally:
        users._hasher.verify = verify  # type: ignore[method-assign]


def test_signing_in_gives_a_new_session_and_ends_the_one_that_was_planted(client: TestClient, db: Database) -> None:
    """W4: session fixation."""
    with db.begin() as session:
        users.create_user(session, "ann", Role.VIEWER, "correct horse battery")
        mallory = users.create_user(session, "mallory", Role.VIEWER)
        planted = users.open_session(session, mallory)
    client.cookies.set(deps.COOKIE, planted)
    form = {"name": "ann", "password": "correct horse battery", "csrf": deps.csrf_of(planted)}
    let_in = client.post("/sign-in", data=form)
    assert let_in.status_code == 303 and planted not in let_in.headers["set-cookie"]
    with db.read() as session:
        assert users.find_secret(session, planted, users.SESSION) is None


def test_a_verdict_is_not_forged(sign_in: Callable[..., TestClient], db: Database) -> None:
    """W13: who may not decide does not, a replay meets its version, and a changed history shows."""
    uid = ward.admit(db, 1)
    said = {"decision": "confirm", "version": 1}
    assert sign_in(Role.VIEWER).post(f"/api/studies/{uid}/reviews", json=said).status_code == 403
    assert sign_in(Role.AUDITOR).post(f"/api/studies/{uid}/reviews", json=said).status_code == 403
    ann = sign_in(Role.REVIEWER, "ann")
    assert ann.post(f"/api/studies/{uid}/reviews", json=said).status_code == 201
    assert sign_in(Role.REVIEWER, "bob").post(f"/api/studies/{uid}/reviews", json=said).status_code == 409
    with db.begin() as session:
        event = audit.search(session, action="review.")[0]
        detail = {**event.detail, "study_version": 2}
        session.execute(update(AuditEvent).where(AuditEvent.id == event.id).values(detail=detail))
    with db.read() as session:
        assert audit.verify(session).broken_at == event.id
        assert reviews.standing(session, studies.brief(session, uid))[-1].decision is Decision.CONFIRM


def test_a_signed_in_browser_is_counted_like_any_other(client: TestClient, db: Database) -> None:
    """W4: the eleventh attempt of an address within a minute is told to wait."""
    with db.begin() as session:
        session.add(User(name="ann", role=Role.VIEWER))
    client.app.state.attempts = auth.Attempts()
    tried = [client.post("/sign-in/code", data={"ticket": str(n), "code": "1"}).status_code for n in range(11)]
    assert tried == [403] * 10 + [429]


def test_secrets_stand_nowhere_in_the_database(db: Database) -> None:
    """W14: a copied database opens no door."""
    with db.begin() as session:
        ann = users.create_user(session, "ann", Role.ADMIN, "correct horse battery")
        make = (users.open_session, users.make_api_token, users.make_one_time_sign_in)
        shown = [one(session, ann) for one in make]
    files = Path(str(db.engine.url.database)).parent.glob("sonomark.sqlite*")
    stored = b"".join(path.read_bytes() for path in files)
    for secret in (*shown, "correct horse battery"):
        assert secret.encode() not in stored
    assert hashlib.sha256(shown[0].encode()).hexdigest().encode() in stored
