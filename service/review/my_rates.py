"""A sonographer's own rates, and nobody else's: those of the Operators' Name that an administrator gave the account."""

from datetime import date, datetime, timedelta
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from service.db.behind import Counted
from service.db.days import day_of, end_of, start_of, today
from service.db.reports import Grouping, Key, Period
from service.db.session import database
from service.errors import NotFound
from service.report.chart import chart
from service.report.compliance import FEWEST_OF_A_PERSON, Report, report
from service.report.names import name_of
from service.review import figures
from service.review.deps import Account, Reader, note
from service.review.pages import render
from service.review.periods import Moment, period_of

router = APIRouter(include_in_schema=False)

DAYS = 90
Day = Annotated[str, Query(max_length=10)]


@router.get("/reports/mine")
def my_rates(
    request: Request,
    account: Reader,
    start: Annotated[Day, Query(alias="from")] = "",
    end: Annotated[Day, Query(alias="to")] = "",
) -> Response:
    """Complete studies over time and by requirement, of one's own scans alone."""
    operator = _operator(account)
    last_day = _day(end) or today()
    first_day = _day(start) or last_day - timedelta(days=DAYS - 1)
    bounds = (start_of(first_day), end_of(last_day))
    rates = partial(report, site=account.site, second_reader=account.second_reader, operator=operator)
    with database().read() as session:
        weekly = rates(session, ["week"], *bounds)
        found = rates(session, ["requirement"], *bounds, weekly.as_of)
    note(account, "report.view", "mine")
    context = {
        "operator": operator,
        "weekly": weekly,
        "report": found,
        "drawn": _drawn(weekly),
        "first_day": first_day,
        "last_day": last_day,
        "studies": _studies(weekly),
        "behind": lambda row, counted: _studies(found, row.key, counted),
        "fewest": FEWEST_OF_A_PERSON,
    }
    return render(request, "my_rates.html", context)


@router.get("/reports/mine/studies")
def my_studies(
    request: Request,
    account: Reader,
    group_by: Grouping | None = None,
    key: Annotated[str, Query(max_length=324)] = "",
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
    counted: Counted | None = None,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """One's own studies behind a number of that page, or all of its time, newest first."""
    period = period_of(account, start, end, as_of, _operator(account))
    back = f"/reports/mine?{urlencode({'from': day_of(period.start), 'to': figures.last_day_of(period)})}"
    by: tuple[Grouping, ...] = (group_by,) if group_by else ()
    name = f"My studies, {group_by} {name_of(group_by, key)}" if group_by else "My studies"
    return figures.page(request, account, by, (key,) if by else (), period, counted, before, name=name, back=back)


def _operator(account: Account) -> str:
    operator = account.user.operator_name
    if not operator:
        raise NotFound(
            "This account scans under no name.", cure="An administrator sets the Operators' Name on the user's page."
        )
    return operator


def _drawn(weekly: Report) -> dict[str, Any]:
    """The weeks as a chart reads them; each point leads to the studies that it counts."""
    told = chart(weekly)
    weeks = [group["week"] for group in told["groups"]]
    return told | {"names": weeks, "pages": [_studies(weekly, (week,)) for week in weeks]}


def _studies(found: Report, key: Key = (), counted: str = "") -> str:
    """The address of the studies behind a number: of one group, or of the whole report."""
    asked = figures.asked(found.group_by if key else (), key, Period(found.start, found.end, found.as_of), counted)
    return f"/reports/mine/studies?{asked}"


def _day(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if date.min + timedelta(days=DAYS) < found < date.max else None
