"""The live worklist: one look at the database a second for everybody, and a stream of changed rows for each reader."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Any
from urllib.parse import parse_qsl

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from service.db import audit, users, worklist
from service.db.session import database
from service.db.tables import now
from service.errors import DatabaseAway
from service.review.deps import Account, Reader
from service.review.pages import environment
from service.review.worklist import filter_of, queue_query

router = APIRouter(include_in_schema=False)

LOOK_EVERY_S = 1.0
HEARTBEAT_S = 15.0
# A transaction that began before the last look may commit after it, so each look reaches back a little.
OVERLAP = timedelta(seconds=10)
MOST_AT_ONCE = 100  # rows; a reader who missed more is told to load the page again


class Ticker:
    """Looks for changed studies as long as anybody listens, and tells every listener their ids."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[frozenset[int]]] = set()
        self._known: dict[int, datetime] = {}  # when each study changed, as the last look saw it
        self._task: asyncio.Task[None] | None = None

    def listen(self) -> asyncio.Queue[frozenset[int]]:
        """A queue that receives the ids of changed studies; hand it to `leave` in the end."""
        queue: asyncio.Queue[frozenset[int]] = asyncio.Queue(maxsize=100)
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._known = {}
            self._task = asyncio.create_task(self._run(now()))
        return queue

    def leave(self, queue: asyncio.Queue[frozenset[int]]) -> None:
        """Stop telling this listener; the last one stops the looking."""
        self._listeners.discard(queue)
        if not self._listeners and self._task is not None:
            self._task.cancel()

    async def _run(self, since: datetime) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            looked_at = now()
            with suppress(DatabaseAway):
                seen = await to_thread.run_sync(_changed, since - OVERLAP)
                fresh = frozenset(id_ for id_, changed in seen.items() if self._known.get(id_) != changed)
                self._known, since = seen, looked_at
                if fresh:
                    self._tell(fresh)

    def _tell(self, ids: frozenset[int]) -> None:
        for queue in self._listeners:
            with suppress(asyncio.QueueFull):  # a listener that does not read is about to be cut off anyway
                queue.put_nowait(ids)


@router.get("/events")
def events(request: Request, account: Reader, last_event_id: Annotated[str, Header(max_length=64)] = "") -> Response:
    """A stream of server-sent events for the worklist that the query names."""
    query = dict(request.query_params)
    stream = _stream(request, account, query, last_event_id)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(request: Request, account: Account, query: dict[str, str], last: str) -> AsyncIterator[str]:
    ticker: Ticker = request.app.state.ticker
    queue = ticker.listen()
    try:
        yield f"retry: 1000\n{_mark()}"
        missed = _moment(last)
        if missed is not None:
            seen = await to_thread.run_sync(_changed, missed - OVERLAP)
            yield await to_thread.run_sync(message, account, query, frozenset(seen))
        while not await request.is_disconnected():
            try:
                ids = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
            except TimeoutError:
                if not await to_thread.run_sync(still_in, account):
                    return  # the next connection is refused, and the page offers to sign in
                yield _mark()  # alive
                continue
            with suppress(DatabaseAway):
                yield await to_thread.run_sync(message, account, query, ids)
    finally:
        ticker.leave(queue)


def message(account: Account, query: dict[str, str], ids: frozenset[int]) -> str:
    """What changed, for one reader: rows that replace themselves, the counts, and which studies are new to the list."""
    wanted = filter_of(query, account)
    at = now()
    with database().read() as session:
        rows = worklist.rows_of(session, sorted(ids)[:MOST_AT_ONCE], account.site, account.second_reader)
        fitting = worklist.fitting(session, wanted, ids)
        counts = worklist.tab_counts(session, wanted)
        seen = audit.viewed(session, account.user.name, [row.study.study_instance_uid for row in rows])
    context: dict[str, Any] = {
        "rows": rows,
        "counts": counts,
        "seen": seen,
        "account": account,
        "queue": queue_query(dict(parse_qsl(query.get("queue", ""))) or query),
        "ranks": worklist.TABS[wanted.tab],
        "at": "",
    }
    html = environment().get_template("worklist_changes.html").render(context)
    told = json.dumps({"fitting": sorted(fitting), "many": len(ids) > MOST_AT_ONCE})
    return event(html, id=at.isoformat()) + event(told, event="changed")


def event(data: str, **fields: str) -> str:
    """One server-sent event."""
    head = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return head + "".join(f"data: {line}\n" for line in data.splitlines()) + "\n"


def _mark() -> str:
    """An id alone: no event for the page, but where it is told from when its line was cut."""
    return f"id: {now().isoformat()}\n\n"


def _changed(since: datetime) -> dict[int, datetime]:
    with database().read() as session:
        return dict(worklist.changed_since(session, since))


def still_in(account: Account) -> bool:
    """Whether the session that opened a stream still stands."""
    with database().read() as session:
        return users.still_stands(session, account.credential.id)


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None and at > now() - timedelta(hours=1) else None
