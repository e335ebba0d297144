"""The studies behind a number of a report: the same question as `reports.tallies`, answered study by study."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any, Literal

from sqlalchemy import SQLColumnExpression
from sqlalchemy.orm import Session

from service.db.days import start_of
from service.db.reports import (
    FLAGGED,
    Grouping,
    Key,
    Period,
    as_verdict,
    column_of,
    corrections_of,
    counts_for,
    decisions_of,
    source_of,
)
from service.db.reviews import outranking
from service.db.tables import Decision, Study, Verdict

# What a study can be counted as; each is one number of a report's row.
Counted = Literal[
    "compliant", "non_compliant", "indeterminate", "excluded", "flagged_reviewed", "overridden", "corrected"
]


@dataclass(frozen=True, slots=True)
class Behind:
    """One study behind a number: what the machine said, what a person decided, and what it counts as."""

    study_id: int
    study_instance_uid: str
    received_at: datetime
    operator: str
    station: str
    institution: str
    exam: str
    verdict: Verdict | None
    decision: Decision | None
    outcome: Verdict | None
    minutes_to_correction: float | None


def studies_behind(
    session: Session,
    by: Sequence[Grouping],
    key: Key,
    period: Period,
    counted: Counted | None = None,
    *,
    before: int | None = None,
    limit: int = 200,
) -> list[Behind]:
    """The studies of one group, newest first: all of them, or those ``counted`` as one of its numbers.

    ``before`` goes on after the last study (its ``study_id``) of the page before.
    """
    found = _of_group(session, by, key, period, before)
    return list(islice((each for each in found if counted is None or _is(each, counted)), limit))


def _of_group(
    session: Session, by: Sequence[Grouping], key: Key, period: Period, before: int | None
) -> Iterator[Behind]:
    decisions = decisions_of(session, period)
    corrected = {} if "requirement" in by else _corrected(session, period)
    _, said, source = source_of(session, by, period)
    query = source.add_columns(
        said,
        Study.study_instance_uid,
        Study.first_received_at,
        Study.operator,
        Study.station,
        Study.institution,
        column_of(session, "exam"),
    ).order_by(Study.id.desc())
    for name, value in zip(by, key, strict=True):
        query = query.where(*_is_in_group(column_of(session, name), name, value))
    if before is not None:
        query = query.where(Study.id < before)
    rows = session.execute(query.execution_options(yield_per=500))
    for study_id, verdict, uid, received, operator, station, institution, exam in rows:
        machine, decision = as_verdict(verdict), decisions.get(study_id)
        heard = decision if counts_for(machine, decision, by) else None
        yield Behind(
            study_id,
            uid,
            received,
            operator,
            station,
            institution,
            exam,
            machine,
            decision,
            outcome=outranking(machine, heard),
            minutes_to_correction=corrected.get(study_id),
        )


def _is_in_group(column: SQLColumnExpression[Any], name: Grouping, value: str) -> list[Any]:
    """Times are ranges of the moment a study came, so that an index serves them; all else is equality."""
    if name not in ("day", "week", "month"):
        return [column == value]
    first = date.fromisoformat(f"{value}-01" if name == "month" else value)
    days = {"day": 1, "week": 7, "month": 31}[name]
    last = first + timedelta(days=days)
    if name == "month":
        last = last.replace(day=1)
    return [Study.first_received_at >= start_of(first), Study.first_received_at < start_of(last)]


def _corrected(session: Session, period: Period) -> dict[int, float]:
    rows = session.execute(corrections_of(period, ()))
    return {study_id: (cleared - flagged).total_seconds() / 60 for study_id, flagged, cleared in rows}


def _is(study: Behind, counted: Counted) -> bool:
    match counted:
        case "flagged_reviewed":
            return study.verdict in FLAGGED and study.decision is not None
        case "overridden":
            return study.verdict in FLAGGED and study.decision is Decision.OVERRIDE
        case "corrected":
            return study.minutes_to_correction is not None
        case "excluded":
            return study.outcome in (None, Verdict.NOT_APPLICABLE)
        case _:
            return study.outcome is not None and study.outcome.value == counted
