"""The counts behind compliance reports, as they stood at a moment.

A study counts on the hospital's day (see `days`) on which it was first received, which never changes. Its verdict is
the one that stood at ``as_of``, and the decisions are those made until then, so that a report can be drawn again years
later and says the same. Self-tests never count.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, func, literal, select
from sqlalchemy.orm import Session, aliased

from service.db import days, decisions, double_reads
from service.db.reviews import outranking
from service.db.tables import Decision, Finding, FindingState, Instance, Review, Study, Verdict, VerdictRecord

Grouping = Literal["operator", "station", "institution", "exam", "requirement", "day", "week", "month"]
Key = tuple[str, ...]
FLAGGED = (Verdict.NON_COMPLIANT, Verdict.INDETERMINATE)


@dataclass(frozen=True, slots=True)
class Period:
    """Studies first received from ``start`` up to but not including ``end``, as known at ``as_of``.

    Those of one ``site`` (institution) or ``operator`` if given, and without those that await the blinded answer of
    ``second_reader``.
    """

    start: datetime
    end: datetime
    as_of: datetime
    site: str = ""
    second_reader: int | None = None
    operator: str = ""


@dataclass(slots=True)
class Tally:
    """One group's counts: of studies, or, when grouped by requirement, of that requirement in studies."""

    compliant: int = 0
    non_compliant: int = 0
    indeterminate: int = 0
    excluded: int = 0  # no requirement applies, or no verdict yet
    flagged_reviewed: int = 0  # non-compliant or uncertain, and decided by a person
    overridden: int = 0  # of these
    minutes_to_correction: list[float] = field(default_factory=list)

    def add(self, verdict: Verdict | None, count: int) -> None:
        """Count ``count`` studies with this verdict; a negative one takes them out again."""
        match verdict:
            case Verdict.COMPLIANT:
                self.compliant += count
            case Verdict.NON_COMPLIANT:
                self.non_compliant += count
            case Verdict.INDETERMINATE:
                self.indeterminate += count
            case _:
                self.excluded += count


def tallies(session: Session, by: Sequence[Grouping], period: Period) -> dict[Key, Tally]:
    """The counts of every group, by the values of ``by``."""
    found: dict[Key, Tally] = defaultdict(Tally)
    for *values, verdict, count in session.execute(_counts(session, by, period)):
        found[_key(by, values)].add(as_verdict(verdict), count)
    _apply_decisions(session, by, period, found)
    _add_corrections(session, by, period, found)
    return dict(found)


def _counts(session: Session, by: Sequence[Grouping], period: Period) -> Select[*tuple[Any, ...]]:
    columns, verdict, source = source_of(session, by, period)
    return source.with_only_columns(*columns, verdict, func.count()).group_by(*columns, verdict)


def source_of(
    session: Session, by: Sequence[Grouping], period: Period
) -> tuple[list[SQLColumnExpression[Any]], SQLColumnExpression[Any], Select[*tuple[Any, ...]]]:
    """Group columns, what is counted, and the studies of the period with their verdicts."""
    at = aliased(VerdictRecord)
    stood = (
        (at.study_id == Study.id)
        & at.instance_id.is_(None)
        & (at.created_at <= period.as_of)
        & (at.superseded_at.is_(None) | (at.superseded_at > period.as_of))
    )
    query: Select[*tuple[Any, ...]] = select(Study.id).where(
        *_of(period), *double_reads.open_to(period.second_reader), Study.first_received_at <= period.as_of
    )
    if "requirement" in by:
        query = query.join(at, stood).join(Finding, Finding.verdict_id == at.id)
        counted: SQLColumnExpression[Any] = Finding.state
    else:
        query = query.outerjoin(at, stood)
        counted = at.verdict
    return [column_of(session, name) for name in by], counted, query


def withheld(session: Session, period: Period) -> int:
    """How many studies of the period are left out because they await the second reader's blinded answer."""
    if period.second_reader is None:
        return 0
    theirs = Study.id.in_(double_reads.awaiting(period.second_reader))
    counted = select(func.count()).select_from(Study).where(*_of(period), theirs)
    return session.scalar(counted.where(Study.first_received_at <= period.as_of)) or 0


def _of(period: Period) -> list[ColumnElement[bool]]:
    of_site = [Study.institution == period.site] if period.site else []
    of_operator = [Study.operator == period.operator] if period.operator else []
    received = (Study.first_received_at >= period.start, Study.first_received_at < period.end)
    return [*received, ~Study.synthetic, *of_site, *of_operator]


def column_of(session: Session, name: Grouping) -> SQLColumnExpression[Any]:
    match name:
        case "operator":
            return Study.operator
        case "station":
            return Study.station
        case "institution":
            return Study.institution
        case "requirement":
            return Finding.requirement
        case "exam":
            named = (func.nullif(text, "") for text in (Study.procedure, Study.description, Study.body_part))
            return func.coalesce(*named, literal(""))
        case _:  # weeks and months are put together of days
            return days.column_of(session, Study.first_received_at)


def _key(by: Sequence[Grouping], values: Sequence[Any]) -> Key:
    return tuple(_value(name, value) for name, value in zip(by, values, strict=True))


def _value(name: Grouping, value: Any) -> str:
    if name not in ("day", "week", "month"):
        return str(value)
    day = value if isinstance(value, date) else date.fromisoformat(value)
    if name == "month":
        return f"{day:%Y-%m}"
    return (day - timedelta(days=day.weekday()) if name == "week" else day).isoformat()


def as_verdict(value: Any) -> Verdict | None:
    """A requirement that is met or missing counts like a study that is compliant or not."""
    if isinstance(value, FindingState):
        return _OF_STATE[value]
    return value if value is None or isinstance(value, Verdict) else Verdict(value)


_OF_STATE = {
    FindingState.MET: Verdict.COMPLIANT,
    FindingState.MISSING: Verdict.NON_COMPLIANT,
    FindingState.UNCERTAIN: Verdict.INDETERMINATE,
    FindingState.NOT_APPLICABLE: Verdict.NOT_APPLICABLE,
}


def _apply_decisions(session: Session, by: Sequence[Grouping], period: Period, found: dict[Key, Tally]) -> None:
    """A person's decision outranks the verdict, see `outranking`."""
    decided = decisions_of(session, period)
    columns, verdict, source = source_of(session, by, period)
    reviewed = source.where(Study.id.in_(select(Review.study_id).where(Review.created_at <= period.as_of)))
    for study_id, said, *values in session.execute(reviewed.add_columns(verdict, *columns)):
        decision, machine = decided.get(study_id), as_verdict(said)
        if decision is None or not counts_for(machine, decision, by):
            continue
        tally = found[_key(by, values)]
        if machine in FLAGGED:
            tally.flagged_reviewed += 1
            tally.overridden += decision is Decision.OVERRIDE
        tally.add(machine, -1)
        tally.add(outranking(machine, decision), 1)


def counts_for(machine: Verdict | None, decision: Decision | None, by: Sequence[Grouping]) -> bool:
    """Whether a decision on the study says something of what is counted.

    An override or a retake of a study does not say which of its met requirements the person doubts.
    """
    return decision is not None and (machine in FLAGGED or "requirement" not in by)


def decisions_of(session: Session, period: Period) -> dict[int, Decision]:
    """The decision that stood at the time, for every study of the period on which one did."""
    stood = decisions.standing(session, *_of(period), as_of=period.as_of)
    return {study_id: left[-1].decision for study_id, left in stood.items()}


def _add_corrections(session: Session, by: Sequence[Grouping], period: Period, found: dict[Key, Tally]) -> None:
    if "requirement" in by:
        return
    columns = [column_of(session, name) for name in by]
    for _, flagged, cleared, *values in session.execute(corrections_of(period, columns)):
        found[_key(by, values)].minutes_to_correction.append((cleared - flagged).total_seconds() / 60)


def corrections_of(period: Period, columns: Sequence[SQLColumnExpression[Any]]) -> Select[*tuple[Any, ...]]:
    """Study id, first non-compliant verdict and first compliant one after that, and ``columns``.

    Only an image that came between the two corrects a study; a changed rule book does not.
    """
    bad, good = aliased(VerdictRecord), aliased(VerdictRecord)
    # A value, not an EXISTS: that a planner may turn into a join with every instance there is.
    image_between = (
        select(func.min(Instance.received_at))
        .where(
            Instance.study_id == Study.id,
            Instance.received_at > bad.created_at,
            Instance.received_at <= good.created_at,
        )
        .scalar_subquery()
    )
    return (
        select(Study.id, func.min(bad.created_at), func.min(good.created_at), *columns)
        .join(bad, (bad.study_id == Study.id) & bad.instance_id.is_(None))
        .join(good, (good.study_id == Study.id) & good.instance_id.is_(None))
        .where(
            bad.verdict == Verdict.NON_COMPLIANT,
            good.verdict == Verdict.COMPLIANT,
            good.created_at > bad.created_at,
            good.created_at <= period.as_of,
            *_of(period),
            *double_reads.open_to(period.second_reader),
            image_between.is_not(None),
        )
        .group_by(Study.id, *columns)
    )


def newest_day(session: Session, before: datetime, site: str = "") -> date | None:
    """The day of the newest study first received before that moment, else of the first one after it."""
    counted = [~Study.synthetic, *([Study.institution == site] if site else [])]
    earlier = select(func.max(Study.first_received_at)).where(Study.first_received_at < before, *counted)
    later = select(func.min(Study.first_received_at)).where(Study.first_received_at >= before, *counted)
    found = session.scalar(earlier) or session.scalar(later)
    return days.day_of(found) if found else None
