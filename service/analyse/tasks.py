"""The worker's way with the queue: claim, assess, record, and again, until nothing waits."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic, sleep

from celery import shared_task
from celery.worker import state

from service import logs, telemetry
from service.analyse import record
from service.analyse.devices import CLAIMS, GPUS, Device, choose_device
from service.analyse.leases import Leases
from service.analyse.pipeline import Begun, Pipeline
from service.analyse.record import Answer
from service.archive.store import archive
from service.db import analyses, heartbeats, rulebooks, switches
from service.db.analyses import Assignment
from service.db.session import database
from service.db.tables import now
from service.errors import DatabaseAway, NetworkError, SonomarkError
from service.failpoints import fp
from service.jobs import enqueue
from service.jobs import reevaluate as reevaluate  # its message is answered by this worker too
from service.jobs.app import ANALYSE
from service.settings import Settings, settings

log = logs.get(__name__)

MOST_PROCESSES = 8
TURN_S = 5.0  # after which other messages, such as re-evaluations, get their turn
PAUSE_S = 0.5  # before the next claim, while archive or database are out of order


@dataclass(frozen=True)
class Batch:
    """Analyses claimed together, on their way through this worker."""

    assignments: list[Assignment]
    started: datetime
    begun: Begun  # of those that have pixels


@shared_task(name=ANALYSE)  # type: ignore[untyped-decorator]
def analyse(analysis_id: int) -> None:
    """The doorbell: somebody waits, perhaps this one. Whoever waits longest is served first.

    Never raises: what went wrong stands in the row, and a bell that came to nothing is rung again by the sweeper.
    """
    try:
        with database().read() as session:
            known = isinstance(analysis_id, int) and analyses.known(session, analysis_id)
            named = switches.network(session)
        if not known:
            telemetry.ASSESSED.labels("ignored").inc()
            log.warning("message names no analysis, ignored")
            return
        take_into_use(named)
    except DatabaseAway as error:
        log.warning("database away, the sweeper will ring again", cause=error.what)
    except NetworkError as error:
        log.error("the network in use cannot be loaded, nothing is claimed", cause=error.what, cure=error.cure)
    else:
        turn(analysis_id)


def turn(analysis_id: int) -> None:
    """Work until nothing waits, so that one bell is enough for many.

    Three batches are under way: while the network runs, the last is recorded and, where decoding would hold the network
    up (a GPU), the next is decoded.
    """
    until = monotonic() + TURN_S
    with ThreadPoolExecutor(1, thread_name_prefix="record") as recorder:
        recording: Future[bool] | None = None
        batch, goes_on = _claim(), True
        while batch:
            goes_on = monotonic() < until and not _told_to_stop()
            ahead = _claim(fresh=True) if goes_on else None
            answers = _assess(batch)
            in_order = recording.result() if recording else True
            recording = recorder.submit(_end, batch, answers)
            if any(isinstance(answer, NetworkError) for answer in answers):
                _leave()
            elif not in_order:
                sleep(PAUSE_S)
            goes_on = goes_on and not _told_to_stop()
            batch = ahead or (_claim() if goes_on else None)
        if not goes_on and not _told_to_stop():
            enqueue.ring([analysis_id])


def claims_at_once() -> int:
    """Instances that a worker claims at once."""
    return settings().batch or CLAIMS[pipeline().provider]


def _claim(*, fresh: bool = False) -> Batch | None:
    """The next batch, its frames being decoded; None when nothing waits, work is paused, another network is to be used
    from now on, or the database is away."""
    try:
        # Lightly: a claim lost in a power cut is a row that waits again.
        with database().begin_lightly() as session:
            if switches.is_on(session, switches.PAUSED):
                return None
            if another := switches.network(session) != _in_use:
                claims, assignments = [], []
                waiting = analyses.oldest_waiting(session, 1)
            else:
                share = claims_at_once(), settings().lease_s
                claims = analyses.claim(session, *share, fresh=fresh, sharers=_sharers(int(monotonic() / TURN_S)))
                assignments = analyses.assignments(session, claims)
    except DatabaseAway as error:
        log.warning("database away, the sweeper will ring again", cause=error.what)
        return None
    if another:
        enqueue.ring(waiting)  # the next turn begins with it
    if not claims:
        return None
    leases().hold(claims)
    try:
        fp("analyse.after_claim")
        begun = pipeline().begin([_fetching(one) for one in assignments if one.number_of_frames])
    except BaseException:
        leases().release(claims)  # they run out, and the sweeper finds them
        raise
    return Batch(assignments, now(), begun)


@lru_cache(maxsize=1)
def _sharers(_turn: int) -> int:
    """Worker processes, of all machines, that share what waits; asked for once a turn."""
    with database().read() as session:
        return max(1, heartbeats.alive(session).get("work", 1))


def _fetching(one: Assignment) -> Callable[[], Path]:
    return partial(archive().path, one.archive_key)


def _assess(batch: Batch) -> list[Answer]:
    """What is on each instance's frames; None for an object without pixels.

    A batch that fails as a whole is taken apart, so that one instance fails and not its neighbours.
    """
    try:
        fp("analyse.before_infer")
        found: list[Answer] = [*pipeline().finish(batch.begun)]
    except Exception as error:  # noqa: BLE001 - whatever it was becomes the answer
        pictures = [one for one in batch.assignments if one.number_of_frames]
        found = [error] if len(pictures) == 1 else [_assess_alone(one) for one in pictures]
    answers = iter(found)
    return [next(answers) if one.number_of_frames else None for one in batch.assignments]


def _assess_alone(one: Assignment) -> Answer:
    try:
        return pipeline().assess(archive().path(one.archive_key))
    except Exception as error:  # noqa: BLE001 - whatever it was becomes the answer
        return error


def _end(batch: Batch, answers: list[Answer]) -> bool:
    try:
        return record.end(list(zip(batch.assignments, answers, strict=True)), batch.started)
    except Exception as error:
        log.exception("a batch was not recorded, its leases will run out", error=type(error).__name__)
        return False
    finally:
        leases().release([one.held for one in batch.assignments])


def _leave() -> None:
    """A device that failed is not tried again by this process: the next one examines it before it claims anything."""
    log.error("the device failed, this worker ends and another takes its place", device=pipeline().provider)
    os.kill(os.getpid(), signal.SIGTERM)


def _told_to_stop() -> bool:
    # Celery writes an exit status there, and that of success is 0.
    return any(told is not None and told is not False for told in (state.should_stop, state.should_terminate))


def worker_processes(device: Device) -> int:
    """As many as the machine has cores, with one thread each: twice the frames of one process with all threads."""
    if device in GPUS:
        return 1
    return settings().workers or min(MOST_PROCESSES, os.cpu_count() or 1)


def threads_each(processes: int) -> int:
    """Threads of the network in each worker process."""
    return settings().threads or max(1, (os.cpu_count() or 1) // processes)


def pipeline() -> Pipeline:
    """This process's network."""
    return _loaded(_in_use)


def take_into_use(named: str) -> None:
    """Work with these weights from now on; empty: those of the settings. Never while a batch is under way.

    Raises `NetworkError` when there are none, and stays with the old ones.
    """
    global _in_use
    if named != _in_use:
        log.info("another network is in use", network=_loaded(named).version)
        _in_use = named


@lru_cache(maxsize=1)
def _loaded(named: str) -> Pipeline:
    here = settings().with_network(named)
    device = choose_device(here.provider)
    made = _made(here, device)
    if device in GPUS and made.provider not in GPUS:  # it did not start, and a crew shares the cores instead
        made = _made(here.model_copy(update={"provider": "cpu"}), made.provider)
    return made


def _made(here: Settings, device: Device) -> Pipeline:
    threads = threads_each(worker_processes(device))
    return Pipeline.of_settings(here, threads=threads, asks_for_text=_text_is_asked_for)


_in_use = ""
_text_was_asked_for = True


def _text_is_asked_for() -> bool:
    """Whether the rule book in force looks at what is written.

    While the database is away, what it said last: it may be back before the answer is recorded, and what was not read
    is open for good. Before it has said anything text is read: that costs time, and no verdict.
    """
    global _text_was_asked_for
    try:
        with database().read() as session:
            _text_was_asked_for = rulebooks.in_force_now(session).asks_for_text
    except SonomarkError as error:
        log.warning("text is read as last asked for", asked=_text_was_asked_for, cause=error.what)
    return _text_was_asked_for


@lru_cache
def leases() -> Leases:
    """What this process holds."""
    return Leases(database(), settings().lease_s)
