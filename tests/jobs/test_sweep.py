"""The sweeper, round by round."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.compliance import evaluate
from service.db import analyses
from service.db.analyses import Claim
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Instance, Study, Verdict, VerdictRecord, now
from service.jobs import enqueue, judge, sweep
from service.jobs.sweep import Sweeper, waiting_messages

Rows = Callable[[int], list[Instance]]
LEASE_S = 20.0


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def passes(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The sweeper's own clock, which goes on when a test says so."""
    clock = Clock()
    monkeypatch.setattr(sweep, "monotonic", clock)
    return clock


@pytest.fixture
def sweeper(db: Database, clock: Clock) -> Sweeper:
    return Sweeper(db, LEASE_S, max_attempts=2)


def queue_one(db: Database, instance_rows: Rows) -> int:
    (instance,) = instance_rows(1)
    with db.begin() as session:
        return enqueue.enqueue(session, session.merge(instance)).id


def due_one(db: Database, instance_rows: Rows) -> int:
    """A study whose only image has been assessed and whose settling time has just passed."""
    analysis = queue_one(db, instance_rows)
    with db.begin() as session:
        row = session.get_one(Analysis, analysis)
        row.state = AnalysisState.DONE
        row.instance.study.settles_at = now()
        return row.instance.study_id


def claim(db: Database) -> Claim:
    with db.begin() as session:
        (held,) = analyses.claim(session, 1, LEASE_S)
    return held


def state(db: Database, analysis: int) -> AnalysisState:
    with db.read() as session:
        return session.get_one(Analysis, analysis).state


def test_a_silent_worker_loses_its_claim_and_in_the_end_the_instance_is_quarantined(
    db: Database, sweeper: Sweeper, clock: Clock, instance_rows: Rows
) -> None:
    analysis = queue_one(db, instance_rows)
    for expected in (AnalysisState.QUEUED, AnalysisState.QUARANTINED):
        claim(db)
        assert sweeper.take_from_the_silent() == 0  # seen for the first time
        clock.passes(LEASE_S * 1.5)
        assert sweeper.take_from_the_silent() == 1
        assert state(db, analysis) is expected
    with db.read() as session:
        row = session.get_one(Analysis, analysis)
        assert "2 attempts" in row.reason and row.cure
        assert session.query(VerdictRecord).filter_by(instance_id=row.instance_id).count() == 1


def test_a_worker_that_renews_keeps_its_claim(
    db: Database, sweeper: Sweeper, clock: Clock, instance_rows: Rows
) -> None:
    analysis = queue_one(db, instance_rows)
    held = claim(db)
    for _ in range(4):
        sweeper.take_from_the_silent()
        clock.passes(LEASE_S * 0.6)
        with db.begin() as session:
            analyses.renew(session, [held], LEASE_S)
    assert state(db, analysis) is AnalysisState.CLAIMED


@pytest.mark.parametrize("jump", [timedelta(days=3), timedelta(hours=-1)])
def test_a_clock_that_jumps_takes_nothing_away(
    db: Database, sweeper: Sweeper, instance_rows: Rows, jump: timedelta
) -> None:
    analysis = queue_one(db, instance_rows)
    claim(db)
    with db.begin() as session:  # as if written before the clock was set
        session.execute(update(Analysis).values(lease_expires_at=now() - jump))
    assert sweeper.take_from_the_silent() == 0
    assert sweeper.take_from_the_silent() == 0
    assert state(db, analysis) is AnalysisState.CLAIMED


@pytest.mark.parametrize("waiting", [timedelta(minutes=1), timedelta(days=-3)], ids=["long", "by a clock set back"])
def test_it_rings_once_for_what_has_no_message(
    db: Database, sweeper: Sweeper, instance_rows: Rows, waiting: timedelta
) -> None:
    queue_one(db, instance_rows)
    assert sweeper.ring_for_the_forgotten() == 0  # its message may still be on the way
    with db.begin() as session:
        session.execute(update(Analysis).values(queued_at=now() - waiting))
    assert sweeper.ring_for_the_forgotten() == 1
    assert sweeper.ring_for_the_forgotten() == 0
    assert waiting_messages() == 1


def test_a_study_that_cannot_be_judged_and_a_duty_that_fails_stop_no_other(
    db: Database, sweeper: Sweeper, instance_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due longest comes first in every round: one study once kept all others from ever being judged."""
    studies = [due_one(db, instance_rows) for _ in range(2)]
    judged = judge.judge_study

    def poisoned(session: Session, study_id: int) -> Verdict | None:
        if study_id == studies[0]:
            raise ValueError("nobody foresaw this header")
        return judged(session, study_id)

    monkeypatch.setattr(judge, "judge_study", poisoned)
    monkeypatch.setattr(sweeper, "ring_for_the_forgotten", lambda: 1 // 0)
    sweeper.sweep()
    with db.read() as session:
        assert [session.get_one(Study, study_id).settled for study_id in studies] == [False, True]


def test_studies_that_cannot_be_judged_do_not_fill_every_round(
    db: Database, sweeper: Sweeper, instance_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "STUDIES_AT_ONCE", 2)
    studies = [due_one(db, instance_rows) for _ in range(5)]
    judged = judge.judge_study

    def poisoned(session: Session, study_id: int) -> Verdict | None:
        if study_id in studies[:3]:
            raise ValueError("nobody foresaw this header")
        return judged(session, study_id)

    monkeypatch.setattr(judge, "judge_study", poisoned)
    for _ in range(3):
        sweeper.judge_the_settled()
    with db.begin() as session:
        assert [session.get_one(Study, each).settled for each in studies] == [False] * 3 + [True] * 2
        session.get_one(Study, studies[-1]).settled = False
    monkeypatch.setattr(judge, "judge_study", judged)
    for _ in range(3):
        sweeper.judge_the_settled()
    with db.read() as session:
        assert all(session.get_one(Study, each).settled for each in studies), "and they get their turn again"


def test_what_cannot_even_be_judged_comes_to_its_end(
    db: Database, sweeper: Sweeper, clock: Clock, instance_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quarantine and verdict were one transaction: without the one there was not the other, and no end."""

    def poisoned(*_: object) -> None:
        raise ValueError("nobody foresaw this header")

    monkeypatch.setattr(evaluate, "judge_instance", poisoned)
    analysis = queue_one(db, instance_rows)
    for _ in range(2):
        claim(db)
        sweeper.take_from_the_silent()
        clock.passes(LEASE_S * 1.5)
        sweeper.take_from_the_silent()
    assert state(db, analysis) is AnalysisState.QUARANTINED
