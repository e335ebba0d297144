"""The doorbell, rung beside the line of C-STOREs: no sender waits for a broker."""

import time
from collections import deque
from threading import Event, Thread

from service.jobs import enqueue

# More than the workers of a house can answer; ringing costs more than receiving, so the door must not ring for each
# instance. What nobody comes for the sweeper rings again.
RINGS_AT_ONCE = 4
PAUSE_S = 0.2
MOST_WAITING = 1000


class Bell:
    """Rings for newly queued analyses from a thread of its own."""

    def __init__(self) -> None:
        self._waiting: deque[int] = deque(maxlen=MOST_WAITING)
        self._pressed = Event()
        Thread(target=self._run, name="bell", daemon=True).start()

    def press(self, analysis_id: int) -> None:
        """Tell the workers soon. Never waits and never raises."""
        self._waiting.append(analysis_id)
        self._pressed.set()

    def _run(self) -> None:
        while True:
            self._pressed.wait()
            self._pressed.clear()
            while self._waiting:
                enqueue.ring([self._waiting.popleft() for _ in range(min(RINGS_AT_ONCE, len(self._waiting)))])
                time.sleep(PAUSE_S)
