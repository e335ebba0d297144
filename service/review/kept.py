"""What many pages ask for and what seldom changes: asked of the database once in a while, for everybody."""

from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Answers that stay good for so many seconds, one for each key. Of this process: another may know more already.

    One that took long to find stays good for so ``many_times`` as long too: whoever asks, and how often, the database
    then spends no more than that part of its time on it.
    """

    def __init__(self, seconds: float, many_times: float = 0.0) -> None:
        self.seconds = seconds
        self.many_times = many_times
        self._answers: dict[Hashable, tuple[float, Value]] = {}
        self._lock = Lock()

    def get(self, key: Hashable, ask: Callable[[], Value]) -> Value:
        """The answer, asked anew when it is too old."""
        with self._lock:
            good_until, answer = self._answers.get(key, (float("-inf"), None))
        if answer is not None and monotonic() < good_until:
            return answer
        at, answer = monotonic(), ask()
        took = monotonic() - at
        with self._lock:
            self._answers[key] = (at + max(self.seconds, took * self.many_times), answer)
        return answer

    def forget(self) -> None:
        """Ask anew: something has just been changed here."""
        with self._lock:
            self._answers.clear()
