"""Verdicts on instances and studies. Append-only but for the moment at which a newer one took a row's place."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Row, Table, bindparam, exists, select, update
from sqlalchemy.orm import Session, selectinload

from service import __version__
from service.compliance.outcome import Outcome, Verdict
from service.db import decisions, double_reads
from service.db.rows import insert_all
from service.db.session import past_mapper
from service.db.tables import Analysis, AnalysisState, Finding, Instance, Study, VerdictRecord, now

StandingRow = Row[*tuple[Any, ...]]
Turn = tuple[datetime, int]  # to be judged: when a study settled, and its id
Place = tuple[int, int | None]  # study and instance; without an instance the study as a whole
_verdicts, _findings = cast(Table, VerdictRecord.__table__), cast(Table, Finding.__table__)
_PLACE = (_verdicts.c.id, _verdicts.c.study_id, _verdicts.c.instance_id)


@dataclass(frozen=True, slots=True)
class Versions:
    """By what a verdict was reached."""

    network: str
    thresholds: str
    rulebook: str
    code_version: str

    @classmethod
    def of(cls, networks: Sequence[str], thresholds: Sequence[str], rulebook: str) -> "Versions":
        """Today's code, a rule book's label, and the networks and thresholds behind all the images."""
        return cls(_one_name(networks, 96), _one_name(thresholds, 16), rulebook, __version__)


@dataclass(frozen=True, slots=True)
class Judged:
    """An outcome to be recorded; without an instance it is the study's."""

    study_id: int
    instance_id: int | None
    outcome: Outcome
    versions: Versions

    @property
    def place(self) -> Place:
        return self.study_id, self.instance_id


def lock(session: Session, study_id: int) -> Study | None:
    """The study's row, held until the transaction ends: verdicts on one study are written one after the other."""
    return session.get(Study, study_id, with_for_update=True, populate_existing=True)


def lock_all(session: Session, study_ids: Collection[int]) -> list[tuple[int, datetime]]:
    """`lock` for several, in the order of their ids: two who lock some of the same never wait for each other in a
    circle. Their ids, and when they settle."""
    rows = past_mapper(session).execute(_LOCKED, {"ids": sorted(study_ids)})
    return [(study_id, settles_at) for study_id, settles_at in rows]


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


def of_studies(session: Session, study_ids: Sequence[int]) -> dict[int, Verdict | None]:
    """The verdict of each of these studies, None where there is none yet."""
    rows = session.execute(select(Study.id, Study.verdict).where(Study.id.in_(study_ids)))
    return {study_id: verdict for study_id, verdict in rows}  # noqa: C416


def record(session: Session, study_id: int, instance_id: int | None, outcome: Outcome, versions: Versions) -> bool:
    """Write a verdict and supersede the standing one; False, and nothing written, when that one says the same."""
    return bool(record_all(session, [Judged(study_id, instance_id, outcome, versions)]))


def record_all(session: Session, judged: Sequence[Judged]) -> list[Judged]:
    """`record` for many at once, in a handful of statements; returns those that were written."""
    former = _standing(session, judged)
    same = _saying_the_same(session, former, judged)
    changed = [each for each in judged if each.place not in same]
    moment = now()
    passed = [former[each.place].id for each in changed if each.place in former]
    if passed:  # before the insert: one standing verdict at a time, says the unique index
        session.execute(
            update(VerdictRecord)
            .where(VerdictRecord.id.in_(passed))
            .values(superseded_at=moment)
            .execution_options(synchronize_session="fetch")
        )
    if not changed:
        return []
    written = insert_all(
        session,
        _verdicts,
        [
            {
                "study_id": each.study_id,
                "instance_id": each.instance_id,
                "verdict": each.outcome.verdict,
                "created_at": moment,
                **asdict(each.versions),
            }
            for each in changed
        ],
        *_PLACE,
    )
    ids = {(row.study_id, row.instance_id): row.id for row in written}
    insert_all(
        session,
        _findings,
        [
            {**finding.as_json(), "state": finding.state, "severity": finding.severity, "verdict_id": ids[each.place]}
            for each in changed
            for finding in each.outcome.findings
        ],
    )
    return changed


def settle_all(session: Session, outcomes: Mapping[int, Verdict]) -> None:
    """Give studies that had settled before their verdicts anew; each is one a reviewer should know of.

    What each lacks was recorded before: a decision that was about another verdict no longer stands.
    """
    by_verdict: dict[Verdict, list[int]] = {}
    for study_id, verdict in outcomes.items():
        by_verdict.setdefault(verdict, []).append(study_id)
    for verdict, ids in by_verdict.items():
        session.execute(
            update(Study)
            .where(Study.id.in_(ids))
            .values(verdict=verdict, version=Study.version + 1)
            .execution_options(synchronize_session=False)
        )
    _clear_outdated(session, outcomes)


def settle(session: Session, study: Study, verdict: Verdict, *, changed: bool) -> None:
    """The study is complete as far as anybody knows, and this is its verdict, which was recorded before.

    A decision that was about another one no longer stands.
    """
    values: dict[str, Any] = {"verdict": verdict, "settled": True}
    if changed:
        values["version"] = Study.version + 1
    decided = study.decision is not None
    session.execute(update(Study).where(Study.id == study.id).values(**values))
    if decided:
        _clear_outdated(session, [study.id])
    session.refresh(study)


def due(session: Session, limit: int = 100, after: Turn | None = None) -> list[Turn]:
    """Studies whose settling time has passed and whose images have all been assessed or given up, the longest due
    first; only those behind ``after``, if that is given."""
    in_flight = exists().where(
        Instance.study_id == Study.id,
        Analysis.instance_id == Instance.id,
        Analysis.state.in_((AnalysisState.QUEUED, AnalysisState.CLAIMED)),
        ~Analysis.superseded,
    )
    query = select(Study.settles_at, Study.id).where(~Study.settled, Study.settles_at <= now(), ~in_flight)
    if after is not None:
        moment, study_id = after
        query = query.where(Study.settles_at >= moment, (Study.settles_at > moment) | (Study.id > study_id))
    rows = session.execute(query.order_by(Study.settles_at, Study.id).limit(limit))
    return [(settles_at, study_id) for settles_at, study_id in rows]


def _clear_outdated(session: Session, study_ids: Collection[int]) -> None:
    outdated = decisions.clear_outdated(session, study_ids)
    if outdated:
        double_reads.forget_decisions(session, outdated)


def _one_name(names: Sequence[str], width: int) -> str:
    """One name for several versions at once: their common one, or a digest of the list that fits the column."""
    if len(names) <= 1:
        return "".join(names)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return f"{len(names)}:{digest}"[:width]


def _standing(session: Session, judged: Sequence[Judged]) -> dict[Place, StandingRow]:
    """The verdicts that stand where these are to stand."""
    instances = [each.instance_id for each in judged if each.instance_id is not None]
    studies = [each.study_id for each in judged if each.instance_id is None]
    found = past_mapper(session).execute(_STANDING, {"instances": instances, "studies": studies})
    return {(row.study_id, row.instance_id): row for row in found}


def _saying_the_same(session: Session, former: Mapping[Place, StandingRow], judged: Sequence[Judged]) -> set[Place]:
    """The places whose standing verdict was reached by the same versions and has the same findings."""
    alike = {
        former[each.place].id: each for each in judged if each.place in former and _is_alike(former[each.place], each)
    }
    findings: dict[int, list[dict[str, Any]]] = {verdict_id: [] for verdict_id in alike}
    query = select(Finding).where(Finding.verdict_id.in_(findings)).order_by(Finding.id)
    for found in session.scalars(query) if findings else ():
        findings[found.verdict_id].append(
            {
                "requirement": found.requirement,
                "state": found.state.value,
                "severity": found.severity.value,
                "sentence": found.sentence,
                "evidence": found.evidence,
            }
        )
    return {
        each.place
        for verdict_id, each in alike.items()
        if findings[verdict_id] == [finding.as_json() for finding in each.outcome.findings]
    }


def _is_alike(former: StandingRow, judged: Judged) -> bool:
    by = Versions(former.network, former.thresholds, former.rulebook, former.code_version)
    return by == judged.versions and former.verdict is judged.outcome.verdict


_LOCKED = (
    select(Study.id, Study.settles_at)
    .where(Study.id.in_(bindparam("ids", expanding=True)))
    .order_by(Study.id)
    .with_for_update()
)
_STANDING = select(
    VerdictRecord.id,
    VerdictRecord.study_id,
    VerdictRecord.instance_id,
    VerdictRecord.verdict,
    VerdictRecord.network,
    VerdictRecord.thresholds,
    VerdictRecord.rulebook,
    VerdictRecord.code_version,
).where(
    VerdictRecord.instance_id.in_(bindparam("instances", expanding=True))
    | (VerdictRecord.instance_id.is_(None) & VerdictRecord.study_id.in_(bindparam("studies", expanding=True))),
    VerdictRecord.superseded_at.is_(None),
)
