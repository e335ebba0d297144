"""The role ``work``: one worker process, or a crew of them that is replaced as it falls."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from threading import Event, Thread

import cv2
from celery.platforms import SecurityWarning

from service import failpoints, logs, tracing
from service.analyse import tasks
from service.analyse.restoration import load_network
from service.archive.store import archive
from service.db import switches
from service.db.heartbeats import keep_beating
from service.db.session import database
from service.errors import StorageError
from service.jobs.app import app
from service.settings import settings

log = logs.get(__name__)


def work() -> None:
    """Analyse until SIGTERM, then finish what was begun.

    Each worker process is a Celery worker of its own, in which tasks run one after the other. Celery's pool of forked
    processes is not used: one that is killed while it waits holds the lock its successors need, and the worker lives
    on without ever working again; and CUDA does not survive a fork.
    Raises `NetworkError` at once when the network or its device is not to be had.
    """
    failpoints.refuse_in_production()
    device = load_network(settings(), threads=1).provider
    processes = tasks.worker_processes(device)
    log.info("working", processes=processes, device=device, threads=tasks.threads_each(processes))
    if processes == 1:
        work_alone()
    else:
        Crew(processes).work()


def work_alone() -> None:
    """One worker process: its network is warm before it takes the first message."""
    _tidy()
    with database().read() as session:
        tasks.take_into_use(switches.network(session))
    _keep_to_share()
    tasks.pipeline().warm_up()
    beating = keep_beating(database(), "work", _in_use)
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


def _keep_to_share() -> None:
    """OpenCV by itself starts a thread a core, which asks two thousand times for its next turn before it sleeps: the
    worker beside this one, whose core that is, is put aside each time, and a hundred times an image."""
    cv2.setNumThreads(tasks.threads_each(tasks.worker_processes(tasks.pipeline().provider)))


def _tidy() -> None:
    """Remove what a killed predecessor had not finished writing: the receiver looks for it once a day only."""
    try:
        archive().remove_abandoned()
    except StorageError as error:
        log.warning("the archive was not tidied", cause=error.what, cure=error.cure)


def _in_use() -> dict[str, str]:
    """What the heartbeat says of this process."""
    pipeline = tasks.pipeline()
    return {"network": pipeline.version, "thresholds": pipeline.reading}


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
    tracing.configure("work")

    def watch() -> None:
        while os.getppid() == leader:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="leader", daemon=True).start()
    work_alone()


_MEMBER = "import sys; from service.analyse.crew import work_as_member; work_as_member(int(sys.argv[1]))"
