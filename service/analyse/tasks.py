"""The worker: claims analyses, assesses their instances, records what was found and the verdict in one transaction."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from threading import Event, Thread
from typing import Any

from celery import shared_task
from celery.platforms import SecurityWarning
from structlog.contextvars import bound_contextvars

from service import __version__, failpoints, logs, telemetry
from service.analyse.pipeline import Assessment, Pipeline
from service.analyse.restoration import BATCH, choose_device, load_network
from service.archive.store import archive
from service.db import analyses
from service.db.analyses import Claim
from service.db.heartbeats import keep_beating
from service.db.session import database
from service.db.tables import Annotation, Frame, Instance, now
from service.errors import (
    DamagedObject,
    DatabaseAway,
    DecoderFailed,
    DicomError,
    LeaseLost,
    SonomarkError,
    StorageError,
)
from service.failpoints import fp
from service.jobs import judge
from service.jobs import reevaluate as reevaluate  # its message is answered by this worker too
from service.jobs.app import ANALYSE, app
from service.settings import settings

log = logs.get(__name__)

Answer = Assessment | Exception | None  # of an instance: what is on it, why that cannot be told, or no pixels

# Nothing takes this long; a worker that hangs where no other limit reaches ends itself, and another tries again.
TASK_LIMIT_S = 1800.0
MOST_PROCESSES = 8


def work() -> None:
    """The role ``work``: analyse until SIGTERM, then finish what was begun.

    Each worker process is a Celery worker of its own, in which tasks run one after the other. Celery's pool of forked
    processes is not used: one that is killed while it waits holds the lock its successors need, and the worker lives
    on without ever working again; and CUDA does not survive a fork.
    Raises `NetworkError` at once when the network or its device is not to be had.
    """
    failpoints.refuse_in_production()
    device = choose_device(settings().provider)
    processes = worker_processes(device)
    load_network(settings(), threads=1)
    log.info("working", processes=processes, device=device, threads=threads_each(processes))
    if processes == 1:
        work_alone()
    else:
        Crew(processes).work()


def work_alone() -> None:
    """One worker process: its network is warm before it takes the first message."""
    pipeline().warm_up()
    beating = keep_beating(database(), "work")
    # Celery warns root of pickled messages; this one takes JSON only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app().Worker(
        hostname=f"work-{os.getpid()}@{socket.gethostname()}",
        pool="solo",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    worker.start()
    beating.set()


class Crew:
    """Worker processes that are replaced when they die."""

    def __init__(self, processes: int) -> None:
        self._stop = Event()
        self._workers: list[subprocess.Popen[bytes]] = [self._start() for _ in range(processes)]

    def work(self) -> None:
        """Until SIGTERM or SIGINT, which the workers get too."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        while not self._stop.wait(1.0):
            for index, worker in enumerate(self._workers):
                if worker.poll() is not None:
                    log.warning("a worker process died, another takes its place", status=worker.returncode)
                    self._workers[index] = self._start()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", _MEMBER, str(os.getpid())])  # noqa: S603 - our own module


def work_as_member(leader: int) -> None:
    """A worker process of a crew: it ends when the crew's leader is gone."""
    logs.configure("work")

    def watch() -> None:
        while os.getppid() == leader:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="leader", daemon=True).start()
    work_alone()


_MEMBER = "import sys; from service.analyse.tasks import work_as_member; work_as_member(int(sys.argv[1]))"


def worker_processes(device: str) -> int:
    """As many as the machine has cores, with one thread each: twice the frames of one process with all threads."""
    if device == "cuda":
        return 1
    return settings().workers or min(MOST_PROCESSES, os.cpu_count() or 1)


def threads_each(processes: int) -> int:
    """Threads of the network in each worker process."""
    return settings().threads or max(1, (os.cpu_count() or 1) // processes)


@shared_task(name=ANALYSE)  # type: ignore[untyped-decorator]
def analyse(analysis_id: int) -> None:
    """The doorbell: somebody waits, perhaps this one. Whoever waits longest is served first.

    Never raises: what went wrong stands in the row, and a bell that came to nothing is rung again by the sweeper.
    """
    try:
        with database().begin() as session:
            if not isinstance(analysis_id, int) or not analyses.known(session, analysis_id):
                telemetry.ASSESSED.labels("ignored").inc()
                log.warning("message names no analysis, ignored")
                return
            claims = analyses.claim(session, settings().batch or BATCH[pipeline().provider], settings().lease_s)
            taken = [(held, session.get_one(Instance, held.instance_id)) for held in claims]
    except DatabaseAway as error:
        log.warning("database away, the sweeper will ring again", cause=error.what)
        return
    if taken:
        with _kept_alive(claims):
            attempt(taken)


def attempt(taken: Sequence[tuple[Claim, Instance]]) -> None:
    """Bring claimed analyses to their ends, or back into the queue. Never raises."""
    fp("analyse.after_claim")
    started = now()
    for (held, instance), answer in zip(taken, _assess([instance for _, instance in taken]), strict=True):
        with bound_contextvars(analysis=held.analysis_id, correlation_id=instance.correlation_id):
            _end(held, answer, started)


def _assess(instances: Sequence[Instance]) -> list[Answer]:
    """What is on each instance's frames; None for an object without pixels.

    A batch that fails as a whole is taken apart, so that one instance fails and not its neighbours.
    """
    fp("analyse.before_infer")
    keys = [instance.archive_key for instance in instances if instance.number_of_frames]
    try:
        found: list[Answer] = [*pipeline().assess_together([archive().path(key) for key in keys])] if keys else []
    except Exception as error:  # noqa: BLE001 - whatever it was becomes the answer
        found = [error] if len(keys) == 1 else [_assess_alone(key) for key in keys]
    answers = iter(found)
    return [next(answers) if instance.number_of_frames else None for instance in instances]


def _assess_alone(key: str) -> Answer:
    try:
        return pipeline().assess(archive().path(key))
    except Exception as error:  # noqa: BLE001 - whatever it was becomes the answer
        return error


def _end(held: Claim, answer: Answer, started: datetime) -> None:
    try:
        if isinstance(answer, Exception):
            raise answer
        _record(held, answer, started)
    except LeaseLost:
        telemetry.ASSESSED.labels("lease_lost").inc()
        log.warning("another worker took over, dropped", attempt=held.attempt)
    except DatabaseAway as error:
        log.warning("database away, the lease will run out", cause=error.what)
    except Exception as error:  # noqa: BLE001 - one instance never stops the line
        _give_back_or_up(held, error)


def _record(held: Claim, assessment: Assessment | None, started: datetime) -> None:
    """Frames, annotations, verdict and the end of the claim in one transaction; the claim's end comes first."""
    frames = _frames(held, assessment) if assessment else []
    with database().begin() as session:
        analyses.finish(session, held, **_versions(assessment, (started - held.queued_at).total_seconds()))
        analyses.keep_frames(session, held, frames)
        verdict = judge.judge_instance(session, held.instance_id)
        fp("analyse.before_verdict_commit")
    fp("analyse.after_verdict_commit")
    telemetry.ASSESSED.labels("done").inc()
    log.info("assessed", verdict=verdict.value, frames=len(frames), attempt=held.attempt)


def _frames(held: Claim, assessment: Assessment) -> list[Frame]:
    """Rows for the assessed frames; their masks are in the archive before the rows are in the database."""
    rows = []
    for frame in assessment.frames:
        mask_key = ""
        if frame.annotations:
            mask_key = f"masks/{held.analysis_id}/{frame.number}.png"
            archive().put(mask_key, frame.mask_png())
        rows.append(
            Frame(
                analysis_id=held.analysis_id,
                number=frame.number,
                rows=frame.rows,
                columns=frame.columns,
                scores={kind: round(score, 6) for kind, score in frame.scores.items()},
                mask_key=mask_key,
                annotations=[_annotation(mark) for mark in frame.annotations],
            )
        )
    return rows


def _annotation(mark: Any) -> Annotation:
    x, y, width, height = mark.box
    return Annotation(kind=mark.kind.value, score=mark.score, x=x, y=y, width=width, height=height, pixels=mark.pixels)


def _versions(assessment: Assessment | None, waited_s: float) -> dict[str, Any]:
    """Which versions gave the answer, and how long each step took."""
    waited = {"wait": round(waited_s * 1000, 3)}
    if assessment is None:
        return {"code_version": __version__, "milliseconds": waited}
    return {
        "code_version": __version__,
        "milliseconds": {**waited, **assessment.milliseconds},
        "network": assessment.network,
        "thresholds": assessment.thresholds,
        "bands": {kind: list(band) for kind, band in assessment.bands.items()},
        "provider": assessment.provider,
    }


def _give_back_or_up(held: Claim, error: Exception) -> None:
    """Bytes that cannot be decoded stay so: quarantine at once. Anything else deserves its attempts.

    What is wrong with the house (storage) is not the instance's fault and is not counted against it.
    """
    what, cure = _reason(error)
    hopeless = isinstance(error, (DicomError, DamagedObject)) and not isinstance(error, DecoderFailed)
    house = isinstance(error, StorageError) and not isinstance(error, DamagedObject)
    try:
        with database().begin() as session:
            if hopeless or (held.attempt >= settings().max_attempts and not house):
                if analyses.quarantine(session, held, what, cure):
                    judge.judge_instance(session, held.instance_id)
                outcome = "quarantined"
            else:
                analyses.hand_back(session, held, what, cure, counted=not house)
                outcome = "handed_back"
    except DatabaseAway as away:
        log.warning("database away, the lease will run out", cause=away.what)
        return
    telemetry.ASSESSED.labels(outcome).inc()
    log.warning(outcome.replace("_", " "), attempt=held.attempt, reason=what, cure=cure)


def _reason(error: Exception) -> tuple[str, str]:
    """For a person to read. Texts of foreign exceptions may quote patient data and are not repeated."""
    if isinstance(error, SonomarkError):
        return error.what, error.cure
    return (
        f"The analysis failed unexpectedly ({type(error).__name__}).",
        "Queue it again; if it fails again, report it with the worker's log.",
    )


@contextmanager
def _kept_alive(claims: Sequence[Claim]) -> Iterator[None]:
    """Renew the leases from a thread for as long as the block runs."""
    stop = Event()
    lease_s = settings().lease_s

    def renew() -> None:
        deadline = time.monotonic() + TASK_LIMIT_S
        while not stop.wait(lease_s / 4):
            if time.monotonic() > deadline:
                log.error("the worker hangs and ends itself", limit_s=TASK_LIMIT_S)
                os._exit(1)
            try:
                with database().begin() as session:
                    analyses.renew(session, claims, lease_s)
            except DatabaseAway:
                log.warning("leases not renewed, database away")

    keeper = Thread(target=renew, name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()


@lru_cache
def pipeline() -> Pipeline:
    """This process's network."""
    device = choose_device(settings().provider)
    return Pipeline.of_settings(threads=threads_each(worker_processes(device)))
