"""Compliance reports: rates with their denominators, intervals and limits, as a page and as files."""

import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from service.db.behind import Counted, studies_behind
from service.db.reports import Grouping, Period
from service.db.session import database
from service.db.tables import Decision, Verdict, now
from service.errors import NotAllowed
from service.report.agreement import agreement
from service.report.chart import chart as columns_of
from service.report.compliance import GROUPINGS, TIMES, Report, Row, UnknownGrouping, known_groupings, report
from service.report.files import MEDIA_TYPES, as_file
from service.review.deps import Account, Reviewer, note
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES
from service.review.schemas import Moment as Instant

router = APIRouter()

DAYS = 30
CHART = {"width": 1120, "height": 230, "left": 52, "right": 12, "top": 12, "bottom": 28}
FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {media: {} for media in MEDIA_TYPES.values()}, "description": "The report"}
}

Moment = Annotated[datetime | date | None, Query(description="A day or a moment in UTC.")]
Kind = Literal["json", "csv", "xlsx", "pdf"]


@router.get("/api/reports/compliance", tags=["reports"], responses=PROBLEM_RESPONSES | FILES, response_class=Response)
def compliance(
    account: Reviewer,
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
    account: Reviewer,
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
    account: Reviewer,
    group_by: Annotated[str, Query(max_length=96)],
    key: Annotated[list[str], Query(description="The group: one value for each of `group_by`, in its order.")],
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
    counted: Annotated[Counted | None, Query(description="Only those that make up this number of the row.")] = None,
    before: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> BehindPage:
    """The studies behind one number of the report, newest first, a page at a time."""
    period = _period(account, start, end, as_of)
    by = known_groupings(group_by.split(","))
    if len(key) != len(by):
        raise UnknownGrouping(f"{len(by)} values name a group by {group_by}.", cure="Send `key` once for each.")
    with database().read() as session:
        try:
            found = studies_behind(session, by, tuple(key), period, counted, before=before, limit=limit + 1)
        except ValueError as error:
            raise UnknownGrouping("That is no day, week or month.", cure="Write 2026-01-31, or 2026-01.") from error
    note(account, "report.view", "studies", {"group_by": group_by, "counted": counted or ""})
    more = _address(by, tuple(key), period, counted, before=found[limit - 1].study_id) if len(found) > limit else None
    return BehindPage(studies=[Behind.model_validate(one, from_attributes=True) for one in found[:limit]], next=more)


@router.get("/api/reports/agreement", tags=["reports"], responses=PROBLEM_RESPONSES)
def agreement_report(
    account: Reviewer,
    start: Annotated[Moment, Query(alias="from")] = None,
    end: Annotated[Moment, Query(alias="to")] = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """Cohen's kappa on double reads: reader against reader, and the machine against the blinded second reader."""
    period = _period(account, start, end, as_of)
    with database().read() as session:
        found = agreement(session, period.start, period.end, period.as_of)
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
        **more,
    }
    return f"/api/reports/compliance/studies?{urlencode(asked, doseq=True)}"


@router.get("/reports", include_in_schema=False)
def reports_page(
    request: Request,
    account: Reviewer,
    group_by: Grouping = "requirement",
    start: Annotated[str, Query(alias="from", max_length=10)] = "",
    end: Annotated[str, Query(alias="to", max_length=10)] = "",
) -> Response:
    """The rates of every group with how sure they are."""
    found = _report(account, [group_by], _day(start), _day(end), None)
    note(account, "report.view", "compliance", {"group_by": group_by})
    context = {
        "report": found,
        "group_by": group_by,
        "groupings": GROUPINGS,
        "chart": chart(found, in_time=group_by in TIMES),
        "in_time": group_by in TIMES,
        "last_day": (found.end - timedelta(seconds=1)).date(),
        "kinds": ("csv", "xlsx", "pdf"),
    }
    return render(request, "reports.html", context)


def chart(found: Report, *, in_time: bool) -> dict[str, Any] | None:
    """A p-chart in time order, or a funnel by size, as coordinates; None when there is nothing to draw."""
    rows = [row for row in found.rows if row.rate is not None]
    if not rows:
        return None
    width = CHART["width"] - CHART["left"] - CHART["right"]
    height = CHART["height"] - CHART["top"] - CHART["bottom"]
    most = max(row.denominator for row in rows)
    lowest = min(min(row.rate or 0.0, row.limits[0] if row.limits else 1.0) for row in rows)
    floor = max(0.0, int(lowest * 10) / 10 - 0.1)

    def across(place: int, row: Row) -> float:
        share = (place + 0.5) / len(rows) if in_time else row.denominator / (most * 1.05)
        return round(CHART["left"] + share * width, 1)

    def down(rate: float) -> float:
        return round(CHART["top"] + (1 - (rate - floor) / (1 - floor)) * height, 1)

    points: list[dict[str, Any]] = [
        {"x": across(place, row), "y": down(row.rate or 0.0), "row": row, "name": row.key[0] or "–"}
        for place, row in enumerate(rows)
    ]
    order = points if in_time else sorted(points, key=lambda point: point["x"])
    limits = [(point["x"], point["row"].limits) for point in order if point["row"].limits]
    return CHART | {
        "points": points,
        "line": " ".join(f"{point['x']},{point['y']}" for point in points) if in_time else "",
        "lower": " ".join(f"{x},{down(bounds[0])}" for x, bounds in limits),
        "upper": " ".join(f"{x},{down(bounds[1])}" for x, bounds in limits),
        "centre": down(found.total.rate) if found.total.rate is not None else None,
        "ticks": [(down(rate), f"{rate:.0%}") for rate in (floor, (1 + floor) / 2, 1.0)],
    }


def _report(
    account: Account,
    group_by: list[str],
    start: datetime | date | None,
    end: datetime | date | None,
    as_of: datetime | None,
) -> Report:
    period = _period(account, start, end, as_of)
    with database().read() as session:
        return report(session, [name.strip() for name in group_by], period.start, period.end, period.as_of)


def _period(
    account: Account, start: datetime | date | None, end: datetime | date | None, as_of: datetime | None
) -> Period:
    if account.site:
        raise NotAllowed("Reports speak of every site.", cure="Use an account that is not bound to one site.")
    until = _aware(end, last=True) or datetime.combine(date.today() + timedelta(days=1), time(), UTC)
    since = _aware(start) or until - timedelta(days=DAYS)
    return Period(since, until, _aware(as_of) or now())


def _aware(given: datetime | date | None, *, last: bool = False) -> datetime | None:
    if given is None:
        return None
    if isinstance(given, datetime):
        return given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    return datetime.combine(given + timedelta(days=last and given < date.max), time(), UTC)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
