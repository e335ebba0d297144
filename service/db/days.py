"""The hospital's days: reports, worklist and re-evaluations count by them, while every moment is stored in UTC."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Date, SQLColumnExpression, cast, func
from sqlalchemy.orm import Session

from service.settings import settings

# Between them every day of a report, in every time zone, is one of the calendar's.
EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=39)
LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
SQLITE_FUNCTION = "day_in_zone"  # SQLite knows no time zones; each of its connections is taught this (see `session`)


def zone() -> ZoneInfo:
    """The hospital's time zone."""
    return settings().zone()


def today() -> date:
    """The hospital's day now."""
    return day_of(datetime.now(UTC))


def day_of(moment: datetime) -> date:
    """The hospital's day of an aware moment."""
    return moment.astimezone(zone()).date()


def start_of(day: date) -> datetime:
    """The UTC moment at which a day of the hospital begins; at the calendar's own ends the nearest there is."""
    midnight = datetime.combine(day, time(), zone())
    try:
        return midnight.astimezone(UTC)
    except OverflowError:
        return midnight.replace(tzinfo=UTC)


def end_of(day: date) -> datetime:
    """The UTC moment at which a day of the hospital is over."""
    return start_of(day + timedelta(days=1)) if day < date.max else LATEST


def within(moment: datetime) -> datetime:
    """An aware moment, or the nearest one that databases and calendars take."""
    return min(max(moment, EARLIEST), LATEST)


def column_of(session: Session, moment: SQLColumnExpression[datetime]) -> SQLColumnExpression[date]:
    """The hospital's day of a column of moments: a date, or on SQLite its ISO 8601 text."""
    if session.get_bind().dialect.name == "sqlite":
        return getattr(func, SQLITE_FUNCTION)(moment, zone().key)  # type: ignore[no-any-return]
    return cast(func.timezone(zone().key, moment), Date)


def of_sqlite(moment: str | None, named: str) -> str | None:
    """What `SQLITE_FUNCTION` answers: the day in the zone of that name, of a moment as SQLite keeps it."""
    if moment is None:
        return None
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).astimezone(ZoneInfo(named)).date().isoformat()
