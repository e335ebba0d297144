"""What is asked of the database once for everybody."""

import pytest

from service.review import kept as room
from service.review.kept import Kept


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "monotonic", clock)
    return clock


def test_what_took_long_is_asked_the_less_often(clock: Clock) -> None:
    asked = 0

    def slowly() -> int:
        nonlocal asked
        asked += 1
        clock.at += 0.5
        return asked

    kept = Kept[int](0, many_times=10)
    began = clock.at
    assert kept.get("all", slowly) == 1
    clock.at = began + 4.99
    assert kept.get("all", slowly) == 1
    clock.at = began + 5.0
    assert kept.get("all", slowly) == 2
    kept.forget()
    assert kept.get("all", slowly) == 3
