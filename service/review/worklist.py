"""The worklist: as a page whose address is its whole state, and as `/api/studies`."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from service.db import audit, choices, days, double_reads, reviews, studies, worklist
from service.db.session import database
from service.db.tables import Decision, Role, Verdict, now
from service.errors import Conflict, NotFound
from service.review import schemas, shaping
from service.review.deps import Account, Reader, note
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES

router = APIRouter()

PERIODS = {"1": "Today", "7": "Last 7 days", "30": "Last 30 days", "": "Any date"}
UP_TO = ".."  # between the first and the last day of a span
FIELDS = ("tab", "q", "station", "operator", "missing", "verdict", "days", "from", "to")
PAGE = 50
# Columns that a reader may leave out; state and patient always show.
COLUMNS = {
    "thumb": "First image",
    "exam": "Exam",
    "missing": "Missing",
    "station": "Station",
    "person": "Sonographer",
    "images": "Images",
    "age": "Received",
}

Text = Annotated[str, Query(max_length=324)]
Day = Annotated[
    schemas.DayOrMoment,
    Query(description="Received at or after (`from`), before (`to`, a day is included)."),
]


async def asked(request: Request, account: Reader) -> worklist.Filter:
    """The filter that the address asks for; what it cannot read narrows nothing."""
    return filter_of(request.query_params, account)


Asked = Annotated[worklist.Filter, Depends(asked)]


def filter_of(query: Mapping[str, str], account: Account) -> worklist.Filter:
    """The filter in a query string (of the page, of a study's queue, or of the live stream)."""
    tab = query.get("tab", "flagged")
    first, _, last = span(query).partition(UP_TO)
    since = _moment(first)
    if (last_days := query.get("days", "")) in PERIODS and last_days:
        since = days.start_of(days.today() - timedelta(days=int(last_days) - 1))
    verdict = query.get("verdict", "")
    return worklist.Filter(
        tab=tab if tab in worklist.TABS else "flagged",
        verdict=Verdict(verdict) if verdict in list(Verdict) else None,
        since=since,
        until=_moment(last, end=True),
        station=query.get("station", "")[:64],
        operator=query.get("operator", "")[:324],
        missing=query.get("missing", "")[:96],
        text=query.get("q", "").strip()[:324],
        holder=account.user.id,
        scanned_by=account.user.preferences.get("operator", ""),
        site=account.site,
        second_reader=account.second_reader,
    )


def span(query: Mapping[str, str]) -> str:
    """The days that a query asks for by their dates, as `from` and `to` or as one value of `days`; empty: by none.

    One value, so that the page's control can hold what the address says.
    """
    asked = query.get("days", "")
    if asked in PERIODS and asked:
        return ""
    first, _, last = asked.partition(UP_TO) if UP_TO in asked else (query.get("from", ""), "", query.get("to", ""))
    first, last = (each if _moment(each) else "" for each in (first, last))
    return f"{first}{UP_TO}{last}" if first or last else ""


def period(query: Mapping[str, str]) -> str:
    """Which of the times offered the address asks for; what it cannot read is none, as for the list itself."""
    asked = query.get("days", "")
    return span(query) or (asked if asked in PERIODS else "")


def periods(query: Mapping[str, str]) -> dict[str, str]:
    """What the page's control of the time offers, with the dates that the address names, and their words."""
    asked = span(query)
    first, _, last = asked.partition(UP_TO)
    words = f"{first} to {last}" if first and last else f"Since {first}" if first else f"Until {last}"
    return PERIODS | ({asked: words} if asked else {})


def queue_query(query: Mapping[str, str]) -> str:
    """The part of a query string that names the queue, for links that stay in it."""
    return urlencode({name: query[name] for name in FIELDS if query.get(name)})


def hidden_columns(account: Account) -> list[str]:
    """The columns that this reader left out."""
    return [name for name in account.user.preferences.get("hidden_columns", []) if name in COLUMNS]


@router.get("/", include_in_schema=False)
def front_door(account: Reader) -> Response:
    """Everybody begins at the worklist."""
    return RedirectResponse("/worklist", status_code=303)


@router.get("/worklist", include_in_schema=False)
def worklist_page(request: Request, account: Reader, wanted: Asked, cursor: str = "") -> Response:
    """What needs me: flagged studies, oldest first."""
    read_at = now()
    with database().read() as session:
        try:
            page = worklist.page(session, wanted, cursor, PAGE)
        except Conflict:  # a changed filter drops its cursor
            page, cursor = worklist.page(session, wanted, "", PAGE), ""
        if cursor and not page.rows:  # others worked off what stood there
            page = worklist.page(session, wanted, "", PAGE)
        context: dict[str, Any] = {
            "page": page,
            "wanted": wanted,
            "counts": worklist.tab_counts(session, wanted),
            "choices": request.app.state.choices.get(account.site, lambda: choices.offered(session, account.site)),
            "last": choices.last_received(session, account.site) if not page.rows else None,
        }
        seen = audit.viewed(session, account.user.name, [row.study.study_instance_uid for row in page.rows])
        second = double_reads.count_waiting_for(session, account.user, account.site) if account.decides else 0
        if account.may(Role.REVIEWER):
            second += double_reads.count_disagreements(session, account.user, account.site)
    context |= {
        "total": context["counts"][wanted.tab],
        "second_reads": second,
        "seen": seen,
        "columns": COLUMNS,
        "hidden": hidden_columns(account),
        "reasons": reviews.REASONS,
        "Decision": Decision,
        "params": dict(request.query_params),
        "queue": queue_query(request.query_params),
        "read_at": read_at,
        "narrowed": any(request.query_params.get(name) for name in FIELDS if name != "tab"),
        "at": request.query_params.get("at", ""),
        "periods": periods(request.query_params),
        "period": period(request.query_params),
        "tabs": worklist.TABS,
        "ranks": worklist.TABS[wanted.tab],
        "with_params": lambda **changes: "?" + urlencode(_changed(request, changes)),
    }
    note(account, "worklist.view", "", {"tab": wanted.tab, "rows": len(page.rows)})
    fragment = request.headers.get("hx-target", "").endswith("list")
    return render(request, "worklist_found.html" if fragment else "worklist.html", context)


@router.get("/accession/{accession_number:path}", include_in_schema=False)  # "2026/1234" is one, too
def by_accession(accession_number: str, account: Reader) -> Response:
    """The study of an accession number: the link that a RIS can make."""
    with database().read() as session:
        found = studies.by_accession(session, accession_number, account.site)
    if not found:
        raise NotFound("There is no study of this accession number.")
    if len(found) > 1:
        return RedirectResponse("/worklist?" + urlencode({"tab": "all", "q": accession_number}), status_code=303)
    return RedirectResponse(f"/studies/{found[0].study_instance_uid}", status_code=303)


@router.get("/api/studies", tags=["studies"], responses=PROBLEM_RESPONSES)
def list_studies(
    account: Reader,
    verdict: Verdict | None = None,
    since: Annotated[Day, Query(alias="from")] = None,
    until: Annotated[Day, Query(alias="to")] = None,
    station: Text = "",
    operator: Text = "",
    q: Text = "",
    tab: Annotated[str, Query(pattern="^(flagged|uncertain|mine|decided|all)$")] = "all",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str, Query(max_length=512)] = "",
) -> schemas.Studies:
    """The worklist: flagged studies first. Follow `next_cursor` until it is null; keep the filter while you do."""
    wanted = worklist.Filter(
        tab=tab,
        verdict=verdict,
        since=_at(since),
        until=_at(until, end=True),
        station=station,
        operator=operator,
        text=q.strip(),
        holder=account.user.id,
        scanned_by=account.user.preferences.get("operator", ""),
        site=account.site,
        second_reader=account.second_reader,
    )
    with database().read() as session:
        page = worklist.page(session, wanted, cursor, limit)
    note(account, "worklist.view", "", {"tab": tab, "rows": len(page.rows)})
    return schemas.Studies(
        studies=[shaping.summary(row) for row in page.rows],
        next_cursor=page.older or None,
        previous_cursor=page.newer or None,
    )


def _changed(request: Request, changes: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in request.query_params.items() if name in FIELDS and value}
    return {name: value for name, value in (kept | changes).items() if value}


def _moment(text: str, *, end: bool = False) -> datetime | None:
    try:
        return _at(date.fromisoformat(text), end=end) if len(text) == 10 else _at(datetime.fromisoformat(text))
    except ValueError:
        return None


def _at(given: datetime | date | None, *, end: bool = False) -> datetime | None:
    """A day is the hospital's, and as an end it is included; a moment without a zone is UTC."""
    if given is None:
        return None
    if isinstance(given, datetime):
        return given if given.tzinfo is not None else given.replace(tzinfo=UTC)
    if end and given < date.max:
        given += timedelta(days=1)
    return days.start_of(given)
