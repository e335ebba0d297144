"""Compliance reports: rates with their denominators, intervals and limits, as a page and as files."""

import json
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.db.behind import Counted
from service.db.days import day_of, today
from service.db.reports import Grouping, Period, newest_day
from service.db.session import database
from service.db.tables import Decision, Verdict
from service.report.agreement import agreement, in_words, of_overrides
from service.report.chart import chart as columns_of
from service.report.compliance import (
    FEWEST_OF_A_PERSON,
    GROUPINGS,
    TIMES,
    Report,
    Row,
    UnknownGrouping,
    known_groupings,
    report,
)
from service.report.files import MEDIA_TYPES, as_file
from service.report.names import name_of, names_of
from service.review import figures
from service.review.deps import Account, Reporter, note
from service.review.pages import render
from service.review.periods import Moment, aware, period_of
from service.review.problems import PROBLEM_RESPONSES
from service.review.report_schemas import ComplianceReport
from service.review.schemas import Moment as Instant

router = APIRouter()

BEHIND = "/api/reports/compliance/studies"
FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ComplianceReport,
        "content": {media: {} for kind, media in MEDIA_TYPES.items() if kind != "json"},
        "description": "The report",
    }
}


Kind = Literal["json", "csv", "xlsx", "pdf"]


@router.get("/api/reports/compliance", tags=["reports"], responses=PROBLEM_RESPONSES | FILES, response_class=Response)
def compliance(
    account: Reporter,
    group_by: Annotated[
        str, Query(max_length=96, description=f"One or more of {', '.join(GROUPINGS)}.")
    ] = "requirement",
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
    format: Kind = "json",
) -> Response:
    """Counts, denominators and rates with 95 % intervals and three-sigma limits, by group."""
    found = _report(account, group_by.split(","), start, end, as_of)
    note(account, "report.export", "compliance", {"group_by": group_by, "format": format})
    if format == "json":
        told = found.as_json()
        for row, line in zip(found.rows, told["rows"], strict=True):
            line["studies"] = drill_down(found, row)
        return Response(json.dumps(told, ensure_ascii=False), media_type=MEDIA_TYPES[format])
    headers = {"Content-Disposition": f'attachment; filename="compliance.{format}"'}
    return Response(as_file(found, format), media_type=MEDIA_TYPES[format], headers=headers)


@router.get("/api/reports/chart", tags=["reports"], responses=PROBLEM_RESPONSES)
def chart_data(
    account: Reporter,
    group_by: Annotated[str, Query(max_length=96, description=f"One or more of {', '.join(GROUPINGS)}.")] = "week",
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """The same rates as columns: a p-chart over time, or a funnel by size, each with limits and outliers marked.

    ``studies`` holds for each point the address of the studies behind it.
    """
    found = _report(account, group_by.split(","), start, end, as_of)
    note(account, "report.view", "chart", {"group_by": group_by})
    told = columns_of(found)
    links = {row.key: drill_down(found, row) for row in found.rows}
    return told | {"studies": [links[tuple(group.values())] for group in told["groups"]]}


class Behind(BaseModel):
    """One study behind a number of a report."""

    study_instance_uid: str
    received_at: Instant
    operator: str
    station: str
    institution: str
    exam: str
    verdict: Verdict | None = Field(description="The machine's, as it stood at `as_of`.")
    decision: Decision | None
    outcome: Verdict | None = Field(description="What it counts as: a person's decision outranks the verdict.")
    minutes_to_correction: float | None


class BehindPage(BaseModel):
    studies: list[Behind]
    next: str | None = Field(description="Address of the next page.")


@router.get(BEHIND, tags=["reports"], responses=PROBLEM_RESPONSES)
def behind(
    account: Reporter,
    group_by: Annotated[str, Query(max_length=96)],
    key: Annotated[list[str], Query(description="The group: one value for each of `group_by`, in its order.")],
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
    counted: Annotated[Counted | None, Query(description="Only those that make up this number of the row.")] = None,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> BehindPage:
    """The studies behind one number of the report, newest first, a page at a time."""
    period = period_of(account, start, end, as_of)
    by = known_groupings(group_by.split(","))
    if len(key) != len(by):
        raise UnknownGrouping(f"{len(by)} values name a group by {group_by}.", cure="Send `key` once for each.")
    found = figures.listed(account, by, tuple(key), period, counted, before, limit + 1)
    more = figures.asked(by, tuple(key), period, counted, found[limit - 1].study_id) if len(found) > limit else None
    told = [Behind.model_validate(one, from_attributes=True) for one in found[:limit]]
    return BehindPage(studies=told, next=more and f"{BEHIND}?{more}")


@router.get("/api/reports/agreement", tags=["reports"], responses=PROBLEM_RESPONSES)
def agreement_report(
    account: Reporter,
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """Cohen's kappa on double reads: reader against reader, and the machine against the blinded second reader."""
    period = period_of(account, start, end, as_of)
    with database().read() as session:
        found = agreement(session, period.start, period.end, period.as_of, period.site)
    note(account, "report.view", "agreement")
    return found.as_json()


def drill_down(found: Report, row: Row) -> str:
    """The address of the studies behind a row; add ``&counted=non_compliant`` for one of its numbers."""
    return f"{BEHIND}?{figures.asked(found.group_by, row.key, Period(found.start, found.end, found.as_of))}"


@router.get("/reports", include_in_schema=False)
def reports_page(
    request: Request,
    account: Reporter,
    group_by: Grouping = "requirement",
    start: Annotated[str, Query(alias="from", max_length=10)] = "",
    end: Annotated[str, Query(alias="to", max_length=10)] = "",
    as_of: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """The rates of every group with how sure they are: over time, by size, and as a table."""
    period = period_of(account, _day(start), _day(end), _end_of(as_of))
    with database().read() as session:
        found = _of(session, [group_by], period)
        weekly = found if group_by in TIMES else _of(session, ["week"], period)
        nearest = None if found.rows else newest_day(session, period.end, period.site)
    note(account, "report.view", "compliance", {"group_by": group_by})
    charts = [("over-time", "Complete studies over time", _drawn(weekly))]
    if group_by not in TIMES:
        charts.append(("by-size", f"Each {group_by} by its number of studies", _drawn(found)))
    context = {
        "report": found,
        "group_by": group_by,
        "groupings": GROUPINGS,
        "charts": charts,
        "names": names_of(found)[0],
        "last_day": day_of(found.end - timedelta(seconds=1)),
        "as_of": as_of if _end_of(as_of) else "",
        "kinds": ("csv", "xlsx", "pdf"),
        "page_of": lambda row, counted: _page_of(found, row, counted),
        "fewest": FEWEST_OF_A_PERSON,
        "agreed": found.agreement,
        "overrides_read": of_overrides(found.agreement.overrides),
        "kappa_words": in_words(found.agreement.readers.kappa),
        "nearest": nearest,
    }
    return render(request, "reports.html", context)


@router.get("/reports/studies", include_in_schema=False)
def studies_page(
    request: Request,
    account: Reporter,
    group_by: Grouping,
    key: Annotated[str, Query(max_length=324)],
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
    counted: Counted | None = None,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """The studies behind one number of the report, newest first."""
    period = period_of(account, start, end, as_of)
    asked = {"group_by": group_by, "from": day_of(period.start), "to": figures.last_day_of(period)}
    as_of_day = day_of(period.as_of - timedelta(microseconds=1))  # the page's moment is a day's end, the next midnight
    if as_of_day < today():
        asked["as_of"] = as_of_day
    name = f"{group_by.capitalize()} {name_of(group_by, key)}"
    back = f"/reports?{urlencode(asked)}"
    return figures.page(request, account, (group_by,), (key,), period, counted, before, name=name, back=back)


def _drawn(found: Report) -> dict[str, Any]:
    """A chart's columns with the name and the page of every point."""
    told = columns_of(found)
    pages = {row.key: _page_of(found, row, None) for row in found.rows}
    keys = [tuple(group.values()) for group in told["groups"]]
    (names,) = names_of(found)
    return told | {
        "names": [names[value] for (value,) in keys],
        "pages": [pages[key] for key in keys],
    }


def _page_of(found: Report, row: Row, counted: str | None) -> str:
    period = Period(found.start, found.end, found.as_of)
    return f"/reports/studies?{figures.asked(found.group_by, row.key, period, counted)}"


def _report(
    account: Account,
    group_by: list[str],
    start: datetime | date | None,
    end: datetime | date | None,
    as_of: datetime | None,
) -> Report:
    period = period_of(account, start, end, as_of)
    with database().read() as session:
        return _of(session, [name.strip() for name in group_by], period)


def _of(session: Session, group_by: list[str], period: Period) -> Report:
    bounds = (period.start, period.end, period.as_of)
    return report(session, group_by, *bounds, site=period.site, second_reader=period.second_reader)


def _end_of(text: str) -> datetime | None:
    day = _day(text)
    return None if day is None else aware(day, last=True)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
