"""At hand before anybody asks: a decoder, and the frame that each flagged study opens with."""

from collections import OrderedDict
from contextlib import suppress
from datetime import datetime
from threading import Event, Thread

from service import logs
from service.db import worklist
from service.db.session import database
from service.db.tables import Study, now
from service.dicom.pixels import start_decoder
from service.errors import DatabaseAway, SonomarkError
from service.review import frames
from service.review.events import OVERLAP
from service.review.study import opening

log = logs.get(__name__)

LOOK_EVERY_S = 2.0
AT_ONCE = 20  # studies a look; of a flood the rest is made when it is opened
REMEMBERED = 2_000


def keep_ready() -> Event:
    """Work from a daemon thread until the returned event is set."""
    stop = Event()
    Thread(target=_run, args=(stop,), name="ready", daemon=True).start()
    return stop


def _run(stop: Event) -> None:
    start_decoder()
    done: OrderedDict[int, datetime] = OrderedDict()
    since: datetime | None = None
    while not stop.is_set():
        looked_at = now()
        with suppress(DatabaseAway):  # the next look reaches back as far as this one would have
            make_ready(done, since)
            since = looked_at
        stop.wait(LOOK_EVERY_S)


def make_ready(done: OrderedDict[int, datetime], since: datetime | None) -> int:
    """Decode the first frame of what waits for a person: studies changed since then, or the head of the queue."""
    made = 0
    with database().read() as session:
        waiting = worklist.waiting(session, since - OVERLAP if since else None, AT_ONCE)
    for study in waiting:
        if done.get(study.id) == study.changed_at:
            continue
        done[study.id] = study.changed_at
        made += _make(study)
    while len(done) > REMEMBERED:
        done.popitem(last=False)
    return made


def _make(study: Study) -> bool:
    with database().read() as session:
        try:
            first = opening(session, study.study_instance_uid)
        except SonomarkError:
            return False  # removed a moment ago
    if first is None:
        return False
    try:
        frames.image(first[0].instance, first[1], webp=True)
    except SonomarkError as error:  # whoever opens the study is told there
        log.info("no_frame_ready", reason=type(error).__name__)
        return False
    return True
