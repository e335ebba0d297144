"""The whole house counted, for ``/metrics``: queue, steps, verdicts, scores, machines. Reads alone, and cheaply:
each query is a range of an index or capped."""

import math
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import quantiles

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from service import telemetry
from service.db import analyses, checks, heartbeats, peers
from service.db.tables import Analysis, AnalysisState, Frame, Instance, Study, VerdictRecord, now

RECENT = timedelta(minutes=10)
HOUR = timedelta(hours=1)
MOST_ROWS = 5_000  # of a window; quantiles and means of the newest this many are as good
MOST_PEERS = 200  # each peer is a time series; a hospital has fewer


def take(session: Session) -> None:
    """Set every gauge of `telemetry.HOUSE` to what is true now."""
    at = now()
    _queue(session, at)
    _recent_analyses(session, at)
    _studies(session, at)
    _scores(session, at)
    _machines(session)
    _archive(session, at)
    telemetry.CLOCK_SKEW.set(clock_skew(session))


def _queue(session: Session, at: datetime) -> None:
    queued, since = analyses.standing(session, AnalysisState.QUEUED)
    claimed, claimed_since = analyses.standing(session, AnalysisState.CLAIMED)
    telemetry.QUEUED.set(queued)
    telemetry.OLDEST_QUEUED.set(_age(at, since))
    telemetry.IN_FLIGHT.set(queued + claimed)
    telemetry.OLDEST_IN_FLIGHT.set(max(_age(at, since), _age(at, claimed_since)))
    telemetry.QUARANTINED.set(analyses.standing(session, AnalysisState.QUARANTINED)[0])
    telemetry.OVERDUE_LEASES.set(analyses.overdue(session, at))


def _recent_analyses(session: Session, at: datetime) -> None:
    recent = session.execute(
        select(
            Analysis.state,
            Analysis.attempts,
            Instance.received_at,
            Analysis.queued_at,
            Analysis.claimed_at,
            Analysis.finished_at,
            Analysis.milliseconds,
        )
        .join(Instance, Instance.id == Analysis.instance_id)
        .where(Analysis.finished_at > at - RECENT)
        .order_by(Analysis.finished_at.desc())
        .limit(MOST_ROWS)
    ).all()
    steps: dict[str, list[float]] = {"queue": [], "analyse": [], "receive_to_verdict": []}
    for row in recent:
        if row.state is not AnalysisState.DONE or row.finished_at is None or row.claimed_at is None:
            continue
        steps["queue"].append((row.claimed_at - row.queued_at).total_seconds())
        steps["analyse"].append((row.finished_at - row.claimed_at).total_seconds())
        steps["receive_to_verdict"].append((row.finished_at - row.received_at).total_seconds())
        for step, milliseconds in row.milliseconds.items():
            steps.setdefault(step, []).append(float(milliseconds) / 1000)
    telemetry.RECENT_STEP.clear()
    for step, seconds in steps.items():
        for quantile, value in _quantiles(seconds):
            telemetry.RECENT_STEP.labels(step, quantile).set(value)
    for state in (AnalysisState.DONE, AnalysisState.QUARANTINED):
        telemetry.RECENT_ANALYSES.labels(state.value).set(sum(row.state is state for row in recent))
    telemetry.RECENT_RETRIES.set(sum(row.attempts > 1 for row in recent))


def _studies(session: Session, at: datetime) -> None:
    due = session.scalar(select(func.min(Study.settles_at)).where(~Study.settled, Study.settles_at < at))
    telemetry.OLDEST_UNJUDGED.set(_age(at, due))
    counted = session.execute(
        select(VerdictRecord.verdict, func.count())
        .where(VerdictRecord.created_at > at - HOUR, VerdictRecord.instance_id.is_(None))
        .group_by(VerdictRecord.verdict)
    )
    telemetry.RECENT_VERDICTS.clear()
    for verdict, number in counted:
        telemetry.RECENT_VERDICTS.labels(verdict.value).set(number)


def _scores(session: Session, at: datetime) -> None:
    """Means alone: Prometheus keeps their history, and the alert compares a day with the month before."""
    scored = session.execute(
        select(Study.station, Frame.scores)
        .join(Analysis, Analysis.id == Frame.analysis_id)
        .join(Instance, Instance.id == Analysis.instance_id)
        .join(Study, Study.id == Instance.study_id)
        .where(Analysis.finished_at > at - HOUR, ~Study.synthetic)
        .order_by(Analysis.finished_at.desc())
        .limit(MOST_ROWS)
    ).all()
    stations: dict[str, list[dict[str, float]]] = {}
    for station, scores in scored:
        stations.setdefault(station or "unknown", []).append(scores)
    telemetry.MEAN_SCORE.clear()
    telemetry.SCORED_FRAMES.clear()
    for station, frames in stations.items():
        telemetry.SCORED_FRAMES.labels(station).set(len(frames))
        for kind in sorted(set().union(*frames)):
            telemetry.MEAN_SCORE.labels(station, kind).set(_mean(frame[kind] for frame in frames if kind in frame))


def _machines(session: Session) -> None:
    telemetry.ROLE_ALIVE.clear()
    for role, processes in heartbeats.alive(session).items():
        telemetry.ROLE_ALIVE.labels(role).set(processes)
    telemetry.PEER_LAST_SEEN.clear()
    telemetry.PEER_REFUSED.clear()
    for peer in peers.peers(session)[-MOST_PEERS:]:
        telemetry.PEER_LAST_SEEN.labels(peer.ae_title).set(peer.last_seen_at.timestamp())
        telemetry.PEER_REFUSED.labels(peer.ae_title).inc(peer.refused)  # a title may call from several addresses


def _archive(session: Session, at: datetime) -> None:
    for condition, count in checks.counts(session).items():
        telemetry.ARCHIVE_ILL.labels(condition.value).set(count)
    whole = next((each for each in checks.last_passes(session) if each.finished_at is not None), None)
    telemetry.ARCHIVE_PASS_AGE.set(_age(at, whole.started_at) if whole else math.nan)


def clock_skew(session: Session) -> float:
    """Leases are compared by the clocks of many machines: they must agree."""
    if session.get_bind().dialect.name == "sqlite":
        return 0.0  # the same machine
    there = session.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
    return time.time() - float(there or 0)


def _age(at: datetime, since: datetime | None) -> float:
    return max(0.0, (at - since).total_seconds()) if since else 0.0


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _quantiles(values: Sequence[float]) -> list[tuple[str, float]]:
    if not values:
        return []
    if len(values) == 1:
        return [("0.5", values[0]), ("0.95", values[0])]
    cuts = quantiles(values, n=20, method="inclusive")
    return [("0.5", cuts[9]), ("0.95", cuts[18])]
