"""Verdicts on instances and studies. Append-only but for the moment at which a newer one took a row's place."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session, selectinload

from service.compliance.outcome import Outcome, Verdict
from service.db.tables import Analysis, AnalysisState, Finding, Instance, Study, VerdictRecord, now


@dataclass(frozen=True, slots=True)
class Versions:
    """By what a verdict was reached."""

    network: str
    thresholds: str
    rulebook: str
    code_version: str


def lock(session: Session, study_id: int) -> Study | None:
    """The study's row, held until the transaction ends: verdicts on one study are written one after the other."""
    return session.get(Study, study_id, with_for_update=True, populate_existing=True)


def standing(session: Session, study_id: int, instance_id: int | None = None) -> VerdictRecord | None:
    """The verdict that stands for the instance, or for the study as a whole."""
    of_this = (
        VerdictRecord.instance_id == instance_id
        if instance_id is not None
        else (VerdictRecord.study_id == study_id) & VerdictRecord.instance_id.is_(None)
    )
    return session.scalar(
        select(VerdictRecord)
        .where(of_this, VerdictRecord.superseded_at.is_(None))
        .options(selectinload(VerdictRecord.findings))
    )


def record(
    session: Session, study_id: int, instance_id: int | None, outcome: Outcome, versions: Versions
) -> VerdictRecord | None:
    """Write a verdict and supersede the standing one; None, and nothing written, when that one says the same."""
    former = standing(session, study_id, instance_id)
    if former is not None:
        if _says_the_same(former, outcome, versions):
            return None
        former.superseded_at = now()
        session.flush()  # before the insert: one standing verdict at a time, says the unique index
    written = VerdictRecord(
        study_id=study_id,
        instance_id=instance_id,
        verdict=outcome.verdict,
        network=versions.network,
        thresholds=versions.thresholds,
        rulebook=versions.rulebook,
        code_version=versions.code_version,
        findings=[
            Finding(
                requirement=finding.requirement,
                state=finding.state,
                severity=finding.severity,
                sentence=finding.sentence,
                evidence=dict(finding.evidence),
            )
            for finding in outcome.findings
        ],
    )
    session.add(written)
    session.flush()
    return written


def settle(session: Session, study: Study, verdict: Verdict, *, changed: bool) -> None:
    """The study is complete as far as anybody knows, and this is its verdict."""
    values = {"verdict": verdict, "settled": True}
    grown = {"version": Study.version + 1} if changed else {}
    session.execute(update(Study).where(Study.id == study.id).values(**values, **grown))
    session.refresh(study)


def due(session: Session, limit: int = 100) -> list[int]:
    """Studies whose settling time has passed and whose images have all been assessed or given up."""
    in_flight = exists().where(
        Instance.study_id == Study.id,
        Analysis.instance_id == Instance.id,
        Analysis.state.in_((AnalysisState.QUEUED, AnalysisState.CLAIMED)),
        ~Analysis.superseded,
    )
    return list(
        session.scalars(
            select(Study.id)
            .where(~Study.settled, Study.settles_at <= now(), ~in_flight)
            .order_by(Study.settles_at, Study.id)
            .limit(limit)
        )
    )


def one_name(names: Sequence[str], width: int) -> str:
    """One name for several versions at once: their common one, or a digest of the list that fits the column."""
    if len(names) <= 1:
        return "".join(names)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return f"{len(names)}:{digest}"[:width]


def _says_the_same(former: VerdictRecord, outcome: Outcome, versions: Versions) -> bool:
    by = Versions(former.network, former.thresholds, former.rulebook, former.code_version)
    if by != versions or former.verdict is not outcome.verdict or len(former.findings) != len(outcome.findings):
        return False
    return all(
        (then.requirement, then.state, then.severity, then.sentence, then.evidence)
        == (today.requirement, today.state, today.severity, today.sentence, dict(today.evidence))
        for then, today in zip(former.findings, outcome.findings, strict=True)
    )
