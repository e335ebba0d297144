"""The doorbell, rung beside the line of C-STOREs: no sender waits for a broker."""

import time
from collections import deque
from threading import Event, Thread

from service.jobs import enqueue

# A worker that is rung for takes from the queue until it is empty, so a few rings stand for many rows, and ringing for
# each would cost more than receiving it. What nobody comes for the sweeper rings again.
RINGS_AT_ONCE = 4
PAUSE_S = 0.25


class Bell:
    """Rings for newly queued analyses from a thread of its own."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._pressed = Event()
        Thread(target=self._run, name="bell", daemon=True).start()

    def press(self, analysis_id: int) -> None:
        """Tell the workers soon. Never waits and never raises."""
        self._waiting.append(analysis_id)
        if not self._pressed.is_set():  # who has been called looks once more after clearing the call
            self._pressed.set()

    def _run(self) -> None:
        while True:
            self._pressed.wait()
            self._pressed.clear()
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            enqueue.ring(waiting[-RINGS_AT_ONCE:])
            time.sleep(PAUSE_S)
