"""One open study, watched: its page hears of decisions, further images and removal while somebody reads it."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.db import double_reads, reviews, studies
from service.db.session import database
from service.db.tables import now
from service.errors import Conflict, DatabaseAway, NotFound
from service.review.blinding import ANSWERED
from service.review.changes import event
from service.review.deps import Account, Reader
from service.review.events import HEARTBEAT_S, Ticker, banners_told, next_change, still_in
from service.review.news import news, removed
from service.review.study import Uid

router = APIRouter(include_in_schema=False)


@router.get("/studies/{study_instance_uid}/events")
def watch(request: Request, study_instance_uid: Uid, account: Reader) -> Response:
    """A stream of server-sent events about one study: `changed` with its version, `removed` when it is gone."""
    with database().read() as session:
        number = studies.brief(session, study_instance_uid, account.site).id
    stream = _stream(request, account, study_instance_uid, number)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _stream(request: Request, account: Account, uid: str, number: int) -> AsyncIterator[str]:
    ticker: Ticker = request.app.state.ticker
    queue = ticker.listen()
    try:
        yield "retry: 2000\n\n" + await to_thread.run_sync(state, account, uid)
        yield (told := await banners_told(request))
        looked = monotonic()
        while not await request.is_disconnected():
            change = await next_change(queue, HEARTBEAT_S)
            due = monotonic() - looked >= HEARTBEAT_S  # in a busy house there is no quiet moment to wait for
            if due:
                looked = monotonic()
                if not await to_thread.run_sync(still_in, account):
                    return
                await to_thread.run_sync(keep_hold, account, uid)
            if due or (change is not None and number in change.ids):
                yield await to_thread.run_sync(state, account, uid)
            if (fresh := await banners_told(request)) != told:
                yield (told := fresh)
    except DatabaseAway:
        return  # the page comes back, and is told how the study stands
    finally:
        ticker.leave(queue)


def keep_hold(account: Account, uid: str) -> None:
    """Whoever has the study in hand keeps it as long as its page is open."""
    with database().read() as session:
        held = reviews.holder_of(session, uid)
    if held is None or held.user_id != account.user.id or held.expires_at > now() + reviews.HOLD_FOR / 2:
        return
    with suppress(Conflict, NotFound), database().begin() as session:
        reviews.hold(session, studies.brief(session, uid, account.site), account.user)


def state(account: Account, uid: str) -> str:
    """How the study stands, as an event."""
    with database().read() as session:
        try:
            study = studies.brief(session, uid, account.site)
        except NotFound:
            return event(json.dumps({"sentence": removed(session, uid)}), event="removed")
        if double_reads.is_blind_for(session, study, account.second_reader):
            return event(json.dumps({"version": study.version, "sentence": ANSWERED, "held_by": ""}), event="changed")
        told: dict[str, Any] = {"version": study.version, "sentence": news(session, study, account)}
        held = reviews.holder(session, study)
        told["held_by"] = held.user.name if held and held.user_id != account.user.id else ""
    return event(json.dumps(told), event="changed")
