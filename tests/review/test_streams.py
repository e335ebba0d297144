"""What the live streams of open pages say, and when they end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.db import audit, reviews, studies, switches, users
from service.db.session import Database
from service.db.tables import Credential, Hold, Role, now
from service.errors import DatabaseAway
from service.review import events, watch
from service.review.changes import Change
from service.review.deps import Account
from tests.review import ward

WITHIN_S = 5.0


@pytest.fixture
def reader(db: Database) -> Account:
    with db.begin() as session:
        user = users.create_user(session, "ann", Role.REVIEWER)
        users.open_session(session, user)
        return Account(user, users.sessions_of(session, user)[0], "csrf", "")


def asked_of(app: FastAPI) -> Request:
    """A request whose client stays on the line."""

    async def receive() -> dict[str, object]:
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    return Request({"type": "http", "app": app, "headers": [], "path": "/events", "query_string": b"tab=all"}, receive)


async def busy(app: FastAPI) -> None:
    """Studies change all the time, as they do in a hospital by day; none of them is anybody's here."""
    while True:
        app.state.ticker._tell(Change({0}))
        await asyncio.sleep(0.01)


async def told(stream: AsyncIterator[str], app: FastAPI, enough: Callable[[str], bool]) -> str:
    """What the stream says until it is enough or the stream ends, while the house is busy."""
    noise, heard = asyncio.create_task(busy(app)), ""
    try:
        async with asyncio.timeout(WITHIN_S):
            async for piece in stream:
                heard += piece
                if enough(heard):
                    return heard
            return heard + "(end)"
    finally:
        noise.cancel()
        await stream.aclose()  # type: ignore[attr-defined]


def open_streams(client: TestClient, reader: Account, uid: str, last: str = "") -> list[AsyncIterator[str]]:
    app = client.app
    with watch.database().read() as session:
        number = studies.brief(session, uid).id
    return [
        events._stream(asked_of(app), reader, {"tab": "all"}, last),
        watch._stream(asked_of(app), reader, uid, number),
    ]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (events, watch):
        monkeypatch.setattr(stream, "HEARTBEAT_S", 0.2)


@pytest.mark.parametrize("ended", [{"revoked_at": now()}, {"last_seen_at": now() - timedelta(days=1)}])
def test_a_stream_ends_with_its_session_however_busy_the_house_is(
    client: TestClient, db: Database, reader: Account, ended: dict[str, object]
) -> None:
    """An administrator who ends a session, or the idle limit, must not wait for a quiet quarter of a minute."""
    uid = ward.admit(db, 1)
    streams = open_streams(client, reader, uid)
    with db.begin() as session:
        session.execute(update(Credential).values(**ended))
    for stream in streams:
        assert asyncio.run(told(stream, client.app, lambda heard: False)).endswith("(end)")


def test_who_opens_a_live_worklist_is_in_the_audit_trail(client: TestClient, db: Database, reader: Account) -> None:
    """Its rows hold names, whether or not its reader loaded the page before."""
    events.events(asked_of(client.app), reader)
    with db.read() as session:
        [seen] = audit.search(session, action="worklist.watch")
    assert (seen.actor, seen.detail) == ("ann", {"tab": "all"})


def test_a_page_that_was_away_is_told_what_stands_by_now(client: TestClient, db: Database, reader: Account) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        switches.turn_on(session, switches.PAUSED, "boss", "a new disk")

    def after(away: timedelta) -> str:
        stream = open_streams(client, reader, uid, (now() - away).isoformat())[0]
        return asyncio.run(told(stream, client.app, lambda heard: "retry" in heard))

    heard = after(timedelta(minutes=1))
    assert "by boss: a new disk" in heard and "DOE, Jane" in heard, "the banner and the row"
    long_ago = (now() - timedelta(hours=2)).isoformat()
    heard = asyncio.run(
        told(open_streams(client, reader, uid, long_ago)[0], client.app, lambda heard: "retry" in heard)
    )
    assert json.loads(heard.split("event: changed\ndata: ")[1].split("\n")[0]) == {"fitting": [], "many": True}


@pytest.mark.parametrize("loading", [timedelta(seconds=1), timedelta(minutes=1)])
def test_what_changed_while_the_page_was_loading_is_told(
    client: TestClient, db: Database, reader: Account, loading: timedelta
) -> None:
    """Others listen already: whoever looks at the database for all of them has told of it, and tells it once."""
    app, read_at = client.app, now() - loading
    uid = ward.admit(db, 1)
    with db.read() as session:
        number = studies.brief(session, uid).id
    app.state.ticker._tell(Change({number}))
    stream = events._stream(asked_of(app), reader, {"tab": "all"}, "", read_at.isoformat())
    heard = asyncio.run(told(stream, app, lambda heard: f"[{number}]" in heard))
    assert "DOE, Jane" in heard
    later = events._stream(asked_of(app), reader, {"tab": "all"}, "", now().isoformat())
    assert "DOE, Jane" not in asyncio.run(told(later, app, lambda heard: heard.count("event: changed") > 3))


def test_a_stream_that_cannot_ask_ends_and_is_begun_again(
    client: TestClient, db: Database, reader: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than going on as if nothing had changed."""
    uid = ward.admit(db, 1)
    (listed, watched) = open_streams(client, reader, uid)

    def away(*_: object) -> str:
        raise DatabaseAway("It is away.")

    monkeypatch.setattr(Change, "message", away)
    assert asyncio.run(told(listed, client.app, lambda heard: False)).endswith("(end)")
    monkeypatch.setattr(watch, "state", away)
    assert asyncio.run(told(watched, client.app, lambda heard: False)).endswith("(end)")


def test_an_open_page_keeps_the_study_in_hand(client: TestClient, db: Database, reader: Account) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        reviews.hold(session, studies.brief(session, uid), reader.user)
        session.execute(update(Hold).values(expires_at=now() + timedelta(seconds=60)))

    def until() -> float:
        with db.read() as session:
            held = reviews.holder(session, studies.brief(session, uid))
            assert held is not None
            return (held.expires_at - now()).total_seconds()

    stream = open_streams(client, reader, uid)[1]
    asyncio.run(told(stream, client.app, lambda heard: heard.count("event: changed") > 2))
    assert until() > 600
    with db.begin() as session:
        other = users.create_user(session, "bob", Role.REVIEWER)
        session.execute(update(Hold).values(user_id=other.id, expires_at=now() + timedelta(seconds=60)))
    stream = open_streams(client, reader, uid)[1]
    asyncio.run(told(stream, client.app, lambda heard: heard.count("event: changed") > 2))
    assert until() < 61, "nobody keeps what is in another's hands"


def test_a_page_that_refreshes_itself_is_no_sign_of_life(sign_in: Callable[..., TestClient], db: Database) -> None:
    """Else a flow page left open in an empty room would never be signed out."""
    admin, at = sign_in(Role.ADMIN), now() - timedelta(minutes=5)
    with db.begin() as session:
        session.execute(update(Credential).values(last_seen_at=at))

    def seen_lately() -> bool:
        with db.read() as session:
            return users.sessions_of(session, users.get_user(session, "admin"))[0].last_seen_at > at

    for path in ("/flow", "/self-test"):
        assert admin.get(path, headers={"HX-Request": "true"}).status_code == 200
    assert not seen_lately()
    admin.get("/flow")
    assert seen_lately()
