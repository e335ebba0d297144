"""The live worklist: one look at the database a second for everybody, and a stream of changed rows for each reader."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from time import monotonic
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from service.db import users, worklist
from service.db.session import database
from service.db.tables import now
from service.errors import DatabaseAway
from service.review.changes import MANY, Change, event
from service.review.deps import Account, Reader, note
from service.review.pages import banners
from service.review.worklist import filter_of

router = APIRouter(include_in_schema=False)

LOOK_EVERY_S = 1.0
HEARTBEAT_S = 15.0
BANNERS_EVERY_S = 5.0
# A transaction that began before the last look may commit after it, so each look reaches back a little.
OVERLAP = timedelta(seconds=10)


class Ticker:
    """Looks for changed studies as long as anybody listens, and tells every listener of them."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[Change]] = set()
        self._known: dict[int, datetime] = {}  # when each study changed, as the last look saw it
        self._told: deque[Change] = deque(maxlen=int(OVERLAP / timedelta(seconds=LOOK_EVERY_S)))
        self._task: asyncio.Task[None] | None = None
        # All streams speak at the same moment: few at a time, lest whoever loads a page waits behind all of them.
        self.turns = CapacityLimiter(2)

    def listen(self, since: datetime | None = None) -> asyncio.Queue[Change]:
        """A queue that receives what changed, since a moment within OVERLAP too; hand it to `leave` in the end."""
        queue: asyncio.Queue[Change] = asyncio.Queue(maxsize=100)
        for change in self._told:
            if since is not None and change.at >= since:
                queue.put_nowait(change)
        self._listeners.add(queue)
        if self._task is None or self._task.done():
            self._known = {}
            self._task = asyncio.create_task(self._run(now()))
        return queue

    def leave(self, queue: asyncio.Queue[Change]) -> None:
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
                    self._tell(Change(fresh))

    def _tell(self, change: Change) -> None:
        self._told.append(change)
        for queue in self._listeners:
            with suppress(asyncio.QueueFull):  # a listener that does not read is about to be cut off anyway
                queue.put_nowait(change)


@router.get("/events")
def events(
    request: Request,
    account: Reader,
    since: Annotated[str, Query(max_length=64)] = "",
    last_event_id: Annotated[str, Header(max_length=64)] = "",
) -> Response:
    """A stream of server-sent events for the worklist that the query names, and that was read at `since`."""
    query = dict(request.query_params)
    note(account, "worklist.watch", "", {"tab": filter_of(query, account).tab})  # names come with each change
    stream = _stream(request, account, query, last_event_id, since)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(
    request: Request, account: Account, query: dict[str, str], last: str, since: str = ""
) -> AsyncIterator[str]:
    ticker: Ticker = request.app.state.ticker
    opened = _moment(since)
    if since and not last and (opened is None or opened < now() - OVERLAP):
        last = since  # a page that was so long in coming is told like one that was away
    queue = ticker.listen(opened)
    try:
        begun = f"retry: 1000\n{_mark()}"
        if not last:
            yield begun
        told, asked = await banners_told(request), monotonic()
        looked = asked
        if last:  # the page was away: it may show what was set before
            yield told + await _missed(ticker, account, query, last) + begun
        while not await request.is_disconnected():
            change = await next_change(queue, HEARTBEAT_S)
            if monotonic() - looked >= HEARTBEAT_S:  # in a busy house there is no quiet moment to wait for
                looked = monotonic()
                if not await to_thread.run_sync(still_in, account):
                    return  # the next connection is refused, and the page offers to sign in
            if change is None:
                yield _mark()  # alive
            else:
                yield await to_thread.run_sync(change.message, account, query, limiter=ticker.turns)
            if monotonic() - asked < BANNERS_EVERY_S:  # a busy house changes several times a second
                continue
            asked = monotonic()
            if (fresh := await banners_told(request)) != told:
                yield (told := fresh)
    except DatabaseAway:
        return  # the page says that it is not live, comes back, and is told what it missed
    finally:
        ticker.leave(queue)


async def next_change(queue: asyncio.Queue[Change], within_s: float) -> Change | None:
    """The next thing that a listener hears; None when nothing happens meanwhile."""
    try:
        return await asyncio.wait_for(queue.get(), within_s)
    except TimeoutError:
        return None


async def _missed(ticker: Ticker, account: Account, query: dict[str, str], last: str) -> str:
    """What changed since the line was cut; after too long a time only that it was much."""
    missed = _moment(last)
    if missed is None:
        return MANY
    seen = await to_thread.run_sync(_changed, missed - OVERLAP)
    return await to_thread.run_sync(Change(seen).message, account, query, limiter=ticker.turns)


async def banners_told(request: Request) -> str:
    """What the banners of a page say by now, for one that was opened before."""
    return event(json.dumps(await to_thread.run_sync(banners, request)), event="banners")


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
