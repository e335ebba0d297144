"""Which overrides a rule book wants with a note and a second reader: those of what weighs most when it is missing.

The rule book asked is the one that the verdict rests on, so that what a study says and what overriding it takes come
from the same version.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db import rulebooks
from service.db.tables import Finding, FindingState, Severity, Study, VerdictRecord


def needs_second_reader(session: Session, rulebook: str, state: FindingState, severity: Severity) -> bool:
    """Whether a finding by the rule book of this label is overridden with a note and a second reader only."""
    if state is not FindingState.MISSING:
        return False
    book = rulebooks.of_label(session, rulebook)
    return book is not None and book.asks_second_reader(severity)


def weighty(session: Session, study: Study) -> list[Finding]:
    """What the study lacks by its standing verdict and nobody overrides without a note, the heaviest first."""
    found = session.execute(
        select(VerdictRecord.rulebook, Finding)
        .join(Finding, Finding.verdict_id == VerdictRecord.id)
        .where(
            VerdictRecord.study_id == study.id,
            VerdictRecord.instance_id.is_(None),
            VerdictRecord.superseded_at.is_(None),
            Finding.state == FindingState.MISSING,
        )
        .order_by(Finding.id)
    )
    heavy = [each for label, each in found if needs_second_reader(session, label, each.state, each.severity)]
    return sorted(heavy, key=lambda each: each.severity.rank)
