"""What many pages ask for and what seldom changes: asked of the database once in a while, for everybody."""

from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Answers that stay good for so many seconds, one for each key. Of this process: another may know more already."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._answers: dict[Hashable, tuple[float, Value]] = {}
        self._lock = Lock()

    def get(self, key: Hashable, ask: Callable[[], Value]) -> Value:
        """The answer, asked anew when it is too old."""
        with self._lock:
            asked_at, answer = self._answers.get(key, (float("-inf"), None))
        if answer is not None and monotonic() < asked_at + self.seconds:
            return answer
        at, answer = monotonic(), ask()
        with self._lock:
            self._answers[key] = (at, answer)
        return answer

    def forget(self) -> None:
        """Ask anew: something has just been changed here."""
        with self._lock:
            self._answers.clear()
