"""A sonographer's own rates, and nobody else's: those of the Operators' Name that an administrator gave the account."""

from datetime import date, timedelta
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from service.db.days import start_of, today
from service.db.session import database
from service.errors import NotFound
from service.report.chart import chart
from service.report.compliance import FEWEST_OF_A_PERSON, Report, report
from service.review.deps import Reader, note
from service.review.pages import render

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
    operator = account.user.operator_name
    if not operator:
        raise NotFound(
            "This account scans under no name.", cure="An administrator sets the Operators' Name on the user's page."
        )
    last_day = _day(end) or today()
    first_day = _day(start) or last_day - timedelta(days=DAYS - 1)
    bounds = (start_of(first_day), start_of(last_day + timedelta(days=1)))
    rates = partial(report, site=account.site, second_reader=account.second_reader, operator=operator)
    with database().read() as session:
        weekly = rates(session, ["week"], *bounds)
        found = rates(session, ["requirement"], *bounds, weekly.as_of)
    note(account, "report.view", "mine")
    context = {
        "operator": operator,
        "weekly": weekly,
        "report": found,
        "drawn": _drawn(weekly, operator),
        "first_day": first_day,
        "last_day": last_day,
        "studies": _worklist(operator, first_day, last_day),
        "fewest": FEWEST_OF_A_PERSON,
    }
    return render(request, "my_rates.html", context)


def _drawn(weekly: Report, operator: str) -> dict[str, Any]:
    """The weeks as a chart reads them; each point leads to that week's studies in the worklist."""
    told = chart(weekly)
    weeks = [date.fromisoformat(group["week"]) for group in told["groups"]]
    pages = [_worklist(operator, week, week + timedelta(days=6)) for week in weeks]
    return told | {"names": [str(week) for week in weeks], "pages": pages}


def _worklist(operator: str, first: date, last: date) -> str:
    return "/worklist?" + urlencode({"tab": "all", "operator": operator, "from": first, "to": last})


def _day(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if date.min + timedelta(days=DAYS) < found < date.max else None
