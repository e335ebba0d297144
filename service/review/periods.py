"""The time of which a report speaks, by days or moments of the address; and of whose studies, by the account."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import Query

from service.db.days import day_of, end_of, start_of, today, within
from service.db.reports import Period
from service.db.tables import now
from service.review.deps import Account
from service.review.schemas import DayOrMoment

DAYS = 30

Moment = Annotated[DayOrMoment, Query(description="A moment in UTC, or a day; the last day is included.")]


def period_of(
    account: Account,
    start: datetime | date | None,
    end: datetime | date | None,
    as_of: datetime | None,
    operator: str = "",
) -> Period:
    """What is asked for, narrowed to what this account may know."""
    until = _within(aware(end, last=True)) or end_of(today())
    since = _within(aware(start)) or start_of(day_of(until) - timedelta(days=DAYS))
    return Period(since, until, _within(aware(as_of)) or now(), account.site, account.second_reader, operator)


def aware(given: datetime | date | None, *, last: bool = False) -> datetime | None:
    """A day is the hospital's, and as the ``last`` one it is included; a moment without a zone is UTC."""
    if given is None:
        return None
    if isinstance(given, datetime):
        return given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return end_of(given) if last else start_of(given)


def _within(given: datetime | None) -> datetime | None:
    return None if given is None else within(given)
