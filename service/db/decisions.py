"""Which decisions of people stand: those nobody took back, while the verdict is the one that their reviewer saw.

A verdict of another value, or one by which more is missing or uncertain, puts the study before a person again, whether
an image or other rules brought it. That is derived from the append-only rows (docs/adr/15-a-decision-is-about-its-
verdict.md), so that it can be told of any moment; `Study.decision` is what it says now.
"""

from collections.abc import Collection
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from service.db.tables import Decision, Finding, FindingState, Review, Severity, Study, VerdictRecord

_LACKING = (FindingState.MISSING, FindingState.UNCERTAIN)


class Decided(NamedTuple):
    """A decision, as far as one asks whether it stands; ``id`` is its review's."""

    study_id: int
    id: int
    decision: Decision
    outdated: bool


def standing(session: Session, *which: ColumnElement[bool], as_of: datetime | None = None) -> dict[int, list[Decided]]:
    """The decisions that stand, or stood at that moment, by study id and oldest first: the last one counts.

    Of the studies ``which`` says, by columns of `Review` and `Study`; those on which none stands are left out.
    """
    query = select(Review.study_id, Review.id, Review.decision, _outdated(as_of)).join(Study).where(*which)
    if as_of is not None:
        query = query.where(Review.created_at <= as_of)
    rows = (Decided(*row) for row in session.execute(query.order_by(Review.study_id, Review.id)))
    found = {study_id: _left(list(of_study)) for study_id, of_study in groupby(rows, key=lambda row: row.study_id)}
    return {study_id: left for study_id, left in found.items() if left}


def clear_outdated(session: Session, study_ids: Collection[int]) -> set[int]:
    """Take from the studies the decision that no longer stands; the ids of those that had one.

    Their rows are the caller's until the transaction ends, and their new verdicts are written.
    """
    decided = select(Study.id).where(Study.id.in_(study_ids), Study.decision.is_not(None))
    found = set(session.scalars(decided))
    outdated = found - standing(session, Review.study_id.in_(found)).keys() if found else set()
    if outdated:
        cleared = update(Study).where(Study.id.in_(outdated)).values(decision=None)
        session.execute(cleared.execution_options(synchronize_session=False))
    return outdated


def changed_since(session: Session, study: Study, moment: datetime) -> bool:
    """Whether what was said of the study at that moment was about a verdict that no longer stands."""
    seen, later = aliased(VerdictRecord), aliased(VerdictRecord)
    stood = (seen.created_at <= moment) & (seen.superseded_at.is_(None) | (seen.superseded_at > moment))
    of_it = (seen.study_id == study.id, seen.instance_id.is_(None), stood)
    return bool(session.scalar(select(exists().where(*of_it, _asks_anew(seen, later)))))


def _left(rows: list[Decided]) -> list[Decided]:
    """Those that stand. What an outdated one had replaced does not come back."""
    left: list[Decided] = []
    for row in rows:
        if row.decision is not Decision.WITHDRAW:
            left.append(row)
        elif left:
            left.pop()  # only the standing decision can be withdrawn
    last_outdated = max((place for place, row in enumerate(left) if row.outdated), default=-1)
    return left[last_outdated + 1 :]


def _outdated(as_of: datetime | None) -> ColumnElement[bool]:
    """Whether a verdict came after the one that the review was about, and puts the study before a person again."""
    seen, later, first = aliased(VerdictRecord), aliased(VerdictRecord), aliased(VerdictRecord)
    # Who decided before there was a verdict is taken to have seen the first one, which came in spite of them.
    of_study = select(func.min(first.id)).where(first.study_id == Review.study_id, first.instance_id.is_(None))
    about = func.coalesce(Review.verdict_id, of_study.correlate(Review).scalar_subquery())
    known = [] if as_of is None else [later.created_at <= as_of]
    return exists().where(seen.id == about, _asks_anew(seen, later), *known).correlate(Review)


def _asks_anew(seen: type[VerdictRecord], later: type[VerdictRecord]) -> ColumnElement[bool]:
    """Whether the later verdict on the study is of another value, or lacks something that was not lacking as seen.

    What is only for information never decides a verdict, and asks nobody.
    """
    lack, before = aliased(Finding), aliased(Finding)
    same = (before.verdict_id == seen.id) & (before.requirement == lack.requirement)
    known = exists().where(same, _weighs(before)).correlate(seen, lack)
    gained = exists().where(lack.verdict_id == later.id, _weighs(lack), ~known).correlate(seen, later)
    # What still stands was followed by none: of most decisions this is all that is read.
    after = seen.superseded_at.is_not(None) & (later.study_id == seen.study_id) & (later.id > seen.id)
    return after & later.instance_id.is_(None) & ((later.verdict != seen.verdict) | gained)


def _weighs(finding: type[Finding]) -> ColumnElement[bool]:
    return finding.state.in_(_LACKING) & (finding.severity != Severity.INFO)
