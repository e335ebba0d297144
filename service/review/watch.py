"""One open study, watched: its page hears of decisions, further images and removal while somebody reads it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.db import double_reads, reviews, studies
from service.db.session import database
from service.errors import DatabaseAway, NotFound
from service.review.blinding import ANSWERED
from service.review.changes import event
from service.review.deps import Account, Reader
from service.review.events import HEARTBEAT_S, Ticker, banners_told, still_in
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
        while not await request.is_disconnected():
            if (fresh := await banners_told(request)) != told:
                yield (told := fresh)
            try:
                if number not in (await asyncio.wait_for(queue.get(), HEARTBEAT_S)).ids:
                    continue
            except TimeoutError:
                if not await to_thread.run_sync(still_in, account):
                    return
            with suppress(DatabaseAway):
                yield await to_thread.run_sync(state, account, uid)
    finally:
        ticker.leave(queue)


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
