"""Compliance reports: rates with their denominators, intervals and limits, as a page and as files."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.db.behind import Behind as StudyBehind
from service.db.behind import Counted, studies_behind
from service.db.days import day_of, start_of, today
from service.db.reports import Grouping, Period, newest_day
from service.db.session import database
from service.db.tables import Decision, Verdict, now
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
from service.review.deps import Account, Reporter, note
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES
from service.review.report_schemas import ComplianceReport
from service.review.schemas import DayOrMoment
from service.review.schemas import Moment as Instant

router = APIRouter()

DAYS = 30
# Between them every day of a report, in every time zone, is one of the calendar's.
EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=DAYS + 9)
LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
PAGE = 100
FILES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ComplianceReport,
        "content": {media: {} for kind, media in MEDIA_TYPES.items() if kind != "json"},
        "description": "The report",
    }
}


Moment = Annotated[DayOrMoment, Query(description="A moment in UTC, or a day; the last day is included.")]
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


@router.get("/api/reports/compliance/studies", tags=["reports"], responses=PROBLEM_RESPONSES)
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
    period = _period(account, start, end, as_of)
    by = known_groupings(group_by.split(","))
    if len(key) != len(by):
        raise UnknownGrouping(f"{len(by)} values name a group by {group_by}.", cure="Send `key` once for each.")
    found = _behind(account, by, tuple(key), period, counted, before, limit + 1)
    more = _address(by, tuple(key), period, counted, before=found[limit - 1].study_id) if len(found) > limit else None
    return BehindPage(studies=[Behind.model_validate(one, from_attributes=True) for one in found[:limit]], next=more)


@router.get("/api/reports/agreement", tags=["reports"], responses=PROBLEM_RESPONSES)
def agreement_report(
    account: Reporter,
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """Cohen's kappa on double reads: reader against reader, and the machine against the blinded second reader."""
    period = _period(account, start, end, as_of)
    with database().read() as session:
        found = agreement(session, period.start, period.end, period.as_of, period.site)
    note(account, "report.view", "agreement")
    return found.as_json()


def drill_down(found: Report, row: Row) -> str:
    """The address of the studies behind a row; add ``&counted=non_compliant`` for one of its numbers."""
    return _address(found.group_by, row.key, Period(found.start, found.end, found.as_of))


def _address(
    by: tuple[Grouping, ...], key: tuple[str, ...], period: Period, counted: str | None = None, **more: Any
) -> str:
    asked: dict[str, Any] = {
        "group_by": ",".join(by),
        "key": list(key),
        "from": period.start.isoformat(),
        "to": period.end.isoformat(),
        "as_of": period.as_of.isoformat(),
        **({"counted": counted} if counted else {}),
        **{name: value for name, value in more.items() if value is not None},
    }
    return f"/api/reports/compliance/studies?{urlencode(asked, doseq=True)}"


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
    period = _period(account, _day(start), _day(end), _end_of(as_of))
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
    period = _period(account, start, end, as_of)
    found = _behind(account, (group_by,), (key,), period, counted, before, PAGE + 1)
    last_day = day_of(period.end - timedelta(seconds=1))
    asked = {"group_by": group_by, "from": day_of(period.start), "to": last_day}
    as_of_day = day_of(period.as_of - timedelta(microseconds=1))  # the page's moment is a day's end, the next midnight
    if as_of_day < today():
        asked["as_of"] = as_of_day
    back = urlencode(asked)
    address = _address((group_by,), (key,), period, counted, before=found[PAGE - 1].study_id if found[PAGE:] else None)
    context = {
        "name": f"{group_by.capitalize()} {name_of(group_by, key)}",
        "counted": counted or "",
        "period": period,
        "last_day": last_day,
        "studies": found[:PAGE],
        "back": f"/reports?{back}",
        "older": _as_page(address) if found[PAGE:] else "",
    }
    return render(request, "report_studies.html", context)


def _behind(
    account: Account,
    by: tuple[Grouping, ...],
    key: tuple[str, ...],
    period: Period,
    counted: Counted | None,
    before: int | None,
    limit: int,
) -> list[StudyBehind]:
    """The studies behind a number; that they were looked at is written down. Raises UnknownGrouping for no such day."""
    with database().read() as session:
        try:
            found = studies_behind(session, by, key, period, counted, before=before, limit=limit)
        except (ValueError, OverflowError) as error:
            raise UnknownGrouping("That is no day, week or month.", cure="Write 2026-01-31, or 2026-01.") from error
    note(account, "report.view", "studies", {"group_by": ",".join(by), "counted": counted or ""})
    return found


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
    return _as_page(_address(found.group_by, row.key, Period(found.start, found.end, found.as_of), counted))


def _as_page(address: str) -> str:
    return f"/reports/studies?{address.partition('?')[2]}"


def _report(
    account: Account,
    group_by: list[str],
    start: datetime | date | None,
    end: datetime | date | None,
    as_of: datetime | None,
) -> Report:
    period = _period(account, start, end, as_of)
    with database().read() as session:
        return _of(session, [name.strip() for name in group_by], period)


def _of(session: Session, group_by: list[str], period: Period) -> Report:
    bounds = (period.start, period.end, period.as_of)
    return report(session, group_by, *bounds, site=period.site, second_reader=period.second_reader)


def _period(
    account: Account, start: datetime | date | None, end: datetime | date | None, as_of: datetime | None
) -> Period:
    """What is asked for, narrowed to what this account may know."""
    until = _within(_aware(end, last=True)) or start_of(today() + timedelta(days=1))
    since = _within(_aware(start)) or start_of(day_of(until) - timedelta(days=DAYS))
    return Period(since, until, _within(_aware(as_of)) or now(), account.site, account.second_reader)


def _within(given: datetime | None) -> datetime | None:
    return None if given is None else min(max(given, EARLIEST), LATEST)


def _aware(given: datetime | date | None, *, last: bool = False) -> datetime | None:
    if given is None:
        return None
    if isinstance(given, datetime):
        return given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return start_of(given + timedelta(days=last and given < date.max))


def _end_of(text: str) -> datetime | None:
    day = _day(text)
    return None if day is None else _aware(day, last=True)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
