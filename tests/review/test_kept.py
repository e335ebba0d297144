"""What is asked of the database once for everybody."""

import time

from service.review.kept import Kept


def test_what_took_long_is_asked_the_less_often() -> None:
    asked: list[float] = []

    def slowly() -> int:
        asked.append(time.monotonic())
        time.sleep(0.05)
        return len(asked)

    kept = Kept[int](0, many_times=10)
    end = time.monotonic() + 0.45
    while time.monotonic() < end:
        assert kept.get("all", slowly) == 1
    time.sleep(0.5)
    assert kept.get("all", slowly) == 2
    kept.forget()
    assert kept.get("all", slowly) == 3
