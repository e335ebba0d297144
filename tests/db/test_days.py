"""The hospital's days: where they begin, summer time and the calendar's ends included."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest

from service.db import days


def test_half_past_eleven_at_night_is_still_that_day(hospital_in: Callable[[str], None]) -> None:
    moments = [datetime(2026, 1, 31, 22, 30, tzinfo=UTC), datetime(2026, 1, 31, 23, 30, tzinfo=UTC)]
    hospital_in("Europe/Berlin")
    assert [days.day_of(moment) for moment in moments] == [date(2026, 1, 31), date(2026, 2, 1)]
    hospital_in("America/New_York")
    assert [days.day_of(moment) for moment in moments] == [date(2026, 1, 31)] * 2


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 7, 1), 24)])
def test_days_are_as_long_as_summer_time_makes_them(hospital_in: Callable[[str], None], day: date, hours: int) -> None:
    hospital_in("Europe/Berlin")
    begin, end = days.start_of(day), days.start_of(day + timedelta(days=1))
    assert end - begin == timedelta(hours=hours)
    assert days.day_of(begin) == days.day_of(end - timedelta(microseconds=1)) == day


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_the_calendars_ends_are_no_error(hospital_in: Callable[[str], None], zone: str) -> None:
    hospital_in(zone)
    assert days.start_of(date.min) < days.start_of(date.max)
