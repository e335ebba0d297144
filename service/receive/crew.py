"""Several receiver processes behind one port, for machines with cores to spare: one process is one core's work.

The first process is the role itself and starts the others; they end with it.
"""

import os
import signal
import subprocess
import sys
import time
from threading import Event, Thread

from service import logs

log = logs.get(__name__)

START = "from service.receive.crew import member; import sys; member(int(sys.argv[1]), int(sys.argv[2]))"
PAUSE_S = 1.0  # before a fallen one is started again
STOPPED_IN_S = 45.0


class Crew:
    """The further processes."""

    def __init__(self, count: int) -> None:
        self._places = range(1, count)
        self._stop = Event()
        self._members: dict[int, subprocess.Popen[bytes]] = {}
        self._thread = Thread(target=self._watch, name="crew", daemon=True)

    def start(self) -> None:
        """Start them, and again whenever one falls."""
        for place in self._places:
            self._members[place] = _started(place)
        self._thread.start()

    def stop(self) -> None:
        """Let each finish what is under way."""
        self._stop.set()
        self._thread.join()
        for process in self._members.values():
            process.terminate()
        deadline = time.monotonic() + STOPPED_IN_S
        for process in self._members.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def _watch(self) -> None:
        while not self._stop.wait(PAUSE_S):
            for place, process in self._members.items():
                if process.poll() is not None:
                    log.error("a receiver process fell and is started again", place=place, status=process.returncode)
                    try:
                        self._members[place] = _started(place)
                    except OSError as error:  # no memory, no process: a second later perhaps
                        log.error("a receiver process cannot be started", place=place, reason=error.strerror)


def member(place: int, first: int) -> None:
    """One further process, which ends when the ``first`` one does, be it before this one listens."""

    def follow() -> None:
        while os.getppid() == first:
            time.sleep(PAUSE_S)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=follow, name="follow", daemon=True).start()
    from service.receive import scp

    scp.serve(place)


def _started(place: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", START, str(place), str(os.getpid())])  # noqa: S603 - ourselves
