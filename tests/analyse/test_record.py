"""A batch written down in one transaction, and what happens when a part of it cannot be."""

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.analyse import record
from service.analyse.annotations import Annotation, Kind
from service.analyse.pipeline import AssessedFrame, Assessment
from service.analyse.record import Answer
from service.archive.store import archive
from service.compliance.outcome import Verdict
from service.db import analyses
from service.db.analyses import Assignment, Seen
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Frame, Instance, Series, Study, VerdictRecord, now
from service.errors import DatabaseAway, NotArchived, NotFound, StorageError, Undecodable, Unreadable
from service.jobs import judge
from service.settings import settings

Claimed = Callable[[int], list[Assignment]]


@pytest.fixture
def claimed(db: Database) -> Iterator[Claimed]:
    """Claims of so many instances, each of a study of its own."""
    archive.cache_clear()

    def make(count: int) -> list[Assignment]:
        with db.begin() as session:
            for n in range(count):
                study = Study(study_instance_uid=f"1.2.{n}", settles_at=now())
                series = Series(study=study, series_instance_uid=f"1.2.{n}.1")
                session.add(series)
                session.flush()
                instance = Instance(
                    study_id=study.id,
                    series_id=series.id,
                    sop_instance_uid=f"1.2.{n}.1.1",
                    sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
                    transfer_syntax_uid="1.2.840.10008.1.2.1",
                    sha256=f"{n:064d}",
                    size=1,
                    archive_key="none",
                    number_of_frames=1,
                )
                session.add(instance)
                session.flush()
                analyses.add(session, instance)
        with db.begin() as session:
            return analyses.assignments(session, analyses.claim(session, count, 20))

    yield make
    archive.cache_clear()


def _empty() -> Assessment:
    return Assessment("", 1, (), "tiny@0", "t", {}, "cpu", {"restore": 1.0})


def _states(db: Database) -> list[AnalysisState]:
    with db.read() as session:
        return [row.state for row in session.query(Analysis).order_by(Analysis.id)]


def test_a_lost_lease_takes_back_its_own_instance_alone(
    db: Database, claimed: Callable[[int], list[Assignment]]
) -> None:
    batch = claimed(3)
    with db.begin() as session:
        session.get_one(Analysis, batch[1].held.analysis_id).token = "another worker"
    record.end([(one, _empty()) for one in batch], now())
    assert _states(db) == [AnalysisState.DONE, AnalysisState.CLAIMED, AnalysisState.DONE]
    with db.read() as session:
        judged = {row.instance_id for row in session.query(VerdictRecord) if row.instance_id}
    assert judged == {batch[0].held.instance_id, batch[2].held.instance_id}


def test_masks_that_cannot_be_kept_send_the_batch_back_without_a_verdict(
    db: Database, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = Annotation(Kind.CALIPER, 0.9, (1, 1, 4, 4), 9)
    frame = AssessedFrame(1, 32, 32, (mark,), {"caliper": 0.9}, False, np.zeros((32, 32), np.uint8))

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("service.archive.store.fsync_file", full)
    assert not record.end([(one, replace(_empty(), frames=(frame,))) for one in claimed(2)], now())
    assert _states(db) == [AnalysisState.QUEUED] * 2
    with db.read() as session:
        assert not session.query(VerdictRecord).count() and not session.query(Frame).count()


def test_who_has_lost_the_lease_leaves_the_winners_masks(db: Database, claimed: Claimed) -> None:
    """A worker that slept past its lease saw the frame with the network of before, say."""
    mark = Annotation(Kind.CALIPER, 0.9, (1, 1, 4, 4), 9)
    early, late = (
        AssessedFrame(1, 32, 32, (mark,), {"caliper": 0.9}, False, np.full((32, 32), kind, np.uint8)) for kind in (1, 2)
    )
    [slept] = claimed(1)
    with db.begin() as session:
        session.get_one(Analysis, slept.held.analysis_id).state = AnalysisState.QUEUED
    with db.begin() as session:
        [woken] = analyses.assignments(session, analyses.claim(session, 1, 20))
    record.end([(woken, replace(_empty(), frames=(late,)))], now())
    record.end([(slept, replace(_empty(), frames=(early,)))], now())
    with db.read() as session:
        kept = session.scalars(select(Frame.mask_key)).one()
    assert archive().get(kept) == late.mask_png()
    assert list(archive().keys("masks")) == [kept]  # nor does the loser leave any behind


def test_each_answer_goes_its_own_way(db: Database, claimed: Claimed) -> None:
    answers: list[Answer] = [_empty(), Undecodable("Nothing can read it."), StorageError("The bucket is away."), None]
    record.end(list(zip(claimed(4), answers, strict=True)), now())
    done, quarantined, queued = AnalysisState.DONE, AnalysisState.QUARANTINED, AnalysisState.QUEUED
    assert _states(db) == [done, quarantined, queued, done]
    with db.read() as session:
        assert [row.attempts for row in session.query(Analysis).order_by(Analysis.id)] == [1, 1, 0, 1]


def test_an_object_that_never_comes_is_given_up_and_its_study_judged(db: Database, claimed: Claimed) -> None:
    """It may be on its way from another machine for a while; then it is lost, and an outage never is."""
    lost, outage = NotArchived("It is not in the bucket."), StorageError("The bucket is away.")
    batch = claimed(2)
    assert not record.end(list(zip(batch, [lost, outage], strict=True)), now())
    assert _attempts(db) == [0, 0]
    with db.begin() as session:
        session.execute(update(Analysis).values(queued_at=now() - timedelta(seconds=record.LOST_AFTER_S + 1)))
    for _ in range(settings().max_attempts):
        with db.begin() as session:
            claims = [claim for _ in range(2) for claim in analyses.claim(session, 1, 20)]
            again = sorted(analyses.assignments(session, claims), key=lambda one: one.study_id)
        record.end(list(zip(again, [lost, outage], strict=True)), now())
    assert _states(db) == [AnalysisState.QUARANTINED, AnalysisState.QUEUED]
    assert _attempts(db) == [settings().max_attempts, 0]
    with db.read() as session:
        assert session.get_one(Study, batch[0].study_id).verdict is Verdict.INDETERMINATE


def test_a_file_that_cannot_be_read_waits_and_on_a_sound_disk_not_for_ever(db: Database, claimed: Claimed) -> None:
    """A share that fails for a moment counts against no image; a single bad sector must not keep its study open."""
    fault = Unreadable("It could not be read: Input/output error.")
    (one,) = claimed(1)
    assert not record.end([(one, fault)], now())
    with db.begin() as session:
        session.execute(update(Analysis).values(queued_at=now() - timedelta(seconds=record.UNREADABLE_AFTER_S + 1)))
    away = archive().root.rename(archive().root.with_name("away"))
    assert not record.end([(_claimed_again(db), fault)], now())
    assert _attempts(db) == [0]
    away.rename(archive().root)
    for _ in range(settings().max_attempts):
        record.end([(_claimed_again(db), fault)], now())
    assert _states(db) == [AnalysisState.QUARANTINED]
    with db.read() as session:
        assert session.get_one(Study, one.study_id).verdict is Verdict.INDETERMINATE


def test_a_copy_that_cannot_be_read_is_fetched_anew_before_the_next_try(
    db: Database, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def away(key: str) -> bool:
        asked.append(key)
        raise StorageError("The bucket does not answer.")

    monkeypatch.setattr(archive(), "fetch_anew", away)
    (one,) = claimed(1)
    assert not record.end([(one, Unreadable("It could not be read: Input/output error."))], now())
    assert asked == [one.archive_key] and _states(db) == [AnalysisState.QUEUED]


def _claimed_again(db: Database) -> Assignment:
    with db.begin() as session:
        (one,) = analyses.assignments(session, analyses.claim(session, 1, 20))
    return one


@pytest.mark.parametrize("gone", [NotFound("It is not there."), FileNotFoundError()])
def test_an_archive_that_is_not_mounted_holds_nothing_against_an_image(
    db: Database, claimed: Claimed, gone: Exception
) -> None:
    batch = claimed(1)
    assert not record.end([(batch[0], gone)], now())
    assert _attempts(db) == [0]
    archive().prepare()
    with db.begin() as session:
        (again,) = analyses.assignments(session, analyses.claim(session, 1, 20))
    assert record.end([(again, gone)], now())
    assert _attempts(db) == [1]


def _attempts(db: Database) -> list[int]:
    with db.read() as session:
        return [row.attempts for row in session.query(Analysis).order_by(Analysis.id)]


def test_a_commit_that_fails_hands_all_of_them_back(
    db: Database, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = claimed(2)

    def fail(name: str) -> None:
        if name == "analyse.before_verdict_commit":
            raise OSError("as at a failpoint")

    monkeypatch.setattr(record, "fp", fail)
    record.end([(one, _empty()) for one in batch], now())
    assert _states(db) == [AnalysisState.QUEUED] * 2


def test_one_that_cannot_be_judged_fails_alone(db: Database, claimed: Claimed, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, judge_instances = claimed(3), judge.judge_instances
    culprit = batch[1].held.instance_id

    def judge_all(session: Session, instance_ids: Sequence[int], seen: Sequence[Seen]) -> dict[int, Verdict]:
        if culprit in instance_ids:
            raise ValueError("as from a fault in the code")
        return judge_instances(session, instance_ids, seen)

    monkeypatch.setattr(judge, "judge_instances", judge_all)
    record.end([(one, _empty()) for one in batch], now())
    assert _states(db) == [AnalysisState.DONE, AnalysisState.QUEUED, AnalysisState.DONE]


def test_an_answer_waits_for_a_database_that_comes_back(
    db: Database, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, away = claimed(2), [DatabaseAway("as in a restart"), DatabaseAway("as in a restart")]

    def fail(name: str) -> None:
        if name == "analyse.before_verdict_commit" and away:
            raise away.pop()

    monkeypatch.setattr(record, "fp", fail)
    monkeypatch.setattr(record, "AGAIN_S", 0.01)
    frame = AssessedFrame(1, 2, 2, (), {"caliper": 0.5}, False, np.zeros((2, 2), np.uint8))
    assert record.end([(one, replace(_empty(), frames=(frame,))) for one in batch], now())
    assert not away and _states(db) == [AnalysisState.DONE] * 2
    with db.read() as session:
        assert session.query(Frame).count() == 2
        assert session.query(VerdictRecord).filter(VerdictRecord.instance_id.is_not(None)).count() == 2


def test_a_database_that_stays_away_is_left_to_the_sweeper(
    db: Database, claimed: Claimed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMARK_LEASE_S", "0.05")
    settings.cache_clear()
    batch = claimed(1)

    def fail(name: str) -> None:
        raise DatabaseAway("for good")

    monkeypatch.setattr(record, "fp", fail)
    monkeypatch.setattr(record, "AGAIN_S", 0.01)
    assert not record.end([(batch[0], _empty())], now())
    assert _states(db) == [AnalysisState.CLAIMED]


def test_what_can_neither_be_decoded_nor_judged_is_quarantined(
    claimed: Claimed, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*_: object) -> None:
        raise ValueError("nobody foresaw this header")

    monkeypatch.setattr(judge.evaluate, "judge_instance", poisoned)
    both = claimed(2)
    assert record.end([(one, Undecodable("It is damaged.")) for one in both], now())
    with db.read() as session:
        rows = [session.get_one(Analysis, one.held.analysis_id) for one in both]
        assert {row.state for row in rows} == {AnalysisState.QUARANTINED}
        assert not session.query(VerdictRecord).count()
