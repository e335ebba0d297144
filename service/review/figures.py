"""The figures of a report: the address of the studies behind one of them, and the page that lists these."""

from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response

from service.db.behind import Behind, Counted, studies_behind
from service.db.days import day_of
from service.db.reports import Grouping, Key, Period
from service.db.session import database
from service.report.compliance import UnknownGrouping
from service.review.deps import Account, note
from service.review.pages import render

PAGE = 100


def asked(
    by: tuple[Grouping, ...], key: Key, period: Period, counted: str | None = None, before: int | None = None
) -> str:
    """The query that names a number: one group's, or without ``by`` that of the whole report."""
    named: dict[str, Any] = {"group_by": ",".join(by), "key": list(key)} if by else {}
    named |= {"from": period.start.isoformat(), "to": period.end.isoformat(), "as_of": period.as_of.isoformat()}
    more = {"counted": counted or None, "before": before}
    return urlencode(named | {name: value for name, value in more.items() if value is not None}, doseq=True)


def listed(
    account: Account,
    by: tuple[Grouping, ...],
    key: Key,
    period: Period,
    counted: Counted | None,
    before: int | None,
    limit: int,
) -> list[Behind]:
    """The studies behind a number; that they were looked at is written down. Raises UnknownGrouping for no such day."""
    with database().read() as session:
        try:
            found = studies_behind(session, by, key, period, counted, before=before, limit=limit)
        except (ValueError, OverflowError) as error:
            raise UnknownGrouping("That is no day, week or month.", cure="Write 2026-01-31, or 2026-01.") from error
    note(account, "report.view", "studies", {"group_by": ",".join(by), "counted": counted or ""})
    return found


def page(
    request: Request,
    account: Account,
    by: tuple[Grouping, ...],
    key: Key,
    period: Period,
    counted: Counted | None,
    before: int | None,
    *,
    name: str,
    back: str,
) -> Response:
    """The list as a page, newest first; ``back`` leads to its report."""
    found = listed(account, by, key, period, counted, before, PAGE + 1)
    older = asked(by, key, period, counted, found[PAGE - 1].study_id) if found[PAGE:] else ""
    context = {
        "name": name,
        "counted": counted or "",
        "period": period,
        "last_day": last_day_of(period),
        "studies": found[:PAGE],
        "back": back,
        "older": older and f"{request.url.path}?{older}",
    }
    return render(request, "report_studies.html", context)


def last_day_of(period: Period) -> date:
    """Its end is the midnight after it."""
    return day_of(period.end - timedelta(seconds=1))
