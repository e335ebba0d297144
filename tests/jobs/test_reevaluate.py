"""Judging again by stored annotations: for good, or to see what would change."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.compliance import evaluate
from service.compliance.facts import StudyFacts
from service.compliance.outcome import Outcome
from service.compliance.rulebook import Rulebook, parse
from service.db import deliveries, reevaluations, rulebooks
from service.db.reevaluations import Range
from service.db.session import Database, database
from service.db.tables import (
    Analysis,
    AnalysisState,
    Base,
    Delivery,
    DeliveryState,
    Frame,
    Instance,
    ReevaluationSlice,
    Series,
    Study,
    Verdict,
    VerdictRecord,
    now,
)
from service.errors import Conflict, NotFound
from service.jobs import reevaluate
from service.jobs.judge import judge_instance
from service.settings import settings
from tests.working_house import WorkingHouse

STRICTER = (
    'name = "mine"\nversion = "2"\n[[requirement]]\nid = "calipers"\ntitle = "Calipers"\n'
    'expect = { annotation = "caliper" }\napplies_to = { exam = "breast" }\n'
)


def fill(session: Session, studies: int, **columns: object) -> None:
    """Settled breast studies of two images each, with a body marker and, in every other study, calipers."""
    for number in range(1, studies + 1):
        study = Study(
            study_instance_uid=f"1.2.{number}",
            description="US BREAST",
            settles_at=now() - timedelta(seconds=1),
            last_received_at=now() - timedelta(days=number),
            **columns,
        )
        study.series.append(Series(series_instance_uid="1", modality="US"))
        session.add(study)
        session.flush()
        for place in (1, 2):
            image = Instance(
                study_id=study.id,
                series_id=study.series[0].id,
                sop_instance_uid=f"1.2.{number}.{place}",
                sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{number:032d}{place:032d}",
                size=1,
                archive_key="k",
                number_of_frames=1,
            )
            scores = {"body_marker": 1.0, "caliper": float(number % 2)}
            analysis = Analysis(instance=image, state=AnalysisState.DONE, network="n@1", thresholds="t")
            analysis.frames.append(Frame(number=1, rows=9, columns=9, scores=scores))
            session.add(analysis)
            session.flush()
            judge_instance(session, image.id)


def draft(session: Session) -> int:
    return rulebooks.keep(session, parse(STRICTER), "anna").id


def in_force(session: Session) -> int:
    """The stricter rules, put in force."""
    return rulebooks.activate(session, draft(session), "anna").id


def verdicts(session: Session) -> list[Verdict | None]:
    return list(session.scalars(select(Study.verdict).order_by(Study.id)))


def asked(db: Database, which: Range, *, records: bool) -> int:
    with db.begin() as session:
        number = in_force(session) if records else draft(session)
        return reevaluate.ask(session, number, which, "anna", records=records).id


def test_no_verdict_is_written_by_a_draft(db: Database) -> None:
    with db.begin() as session:
        with pytest.raises(Conflict, match="never put in force"):
            reevaluate.ask(session, draft(session), Range(), "anna", records=True)
        assert reevaluate.ask(session, draft(session), Range(), "anna", records=False).total == 0


def test_what_if_says_what_would_change_and_changes_nothing(db: Database) -> None:
    with db.begin() as session:
        fill(session, 5)
        before = len(session.scalars(select(VerdictRecord)).all())
    which = asked(db, Range(), records=False)
    assert reevaluate.run(db, which)
    with db.read() as session:
        found = reevaluations.get(session, which)
        assert (found.total, found.done) == (5, 5)
        assert found.finished_at is not None
        assert found.changes == {"compliant>non_compliant": {"count": 2, "studies": ["1.2.2", "1.2.4"]}}
        assert verdicts(session) == [Verdict.COMPLIANT] * 5
        assert len(session.scalars(select(VerdictRecord)).all()) == before


def test_for_good_every_study_and_image_gets_a_verdict_by_the_new_rules(db: Database) -> None:
    with db.begin() as session:
        fill(session, 3)
    which = asked(db, Range(), records=True)
    assert reevaluate.run(db, which)
    with db.read() as session:
        assert verdicts(session) == [Verdict.COMPLIANT, Verdict.NON_COMPLIANT, Verdict.COMPLIANT]
        standing = session.scalars(select(VerdictRecord).where(VerdictRecord.superseded_at.is_(None))).all()
        assert len(standing) == 9
        assert {record.rulebook for record in standing} == {parse(STRICTER).label}
        old = session.scalars(select(VerdictRecord).where(VerdictRecord.superseded_at.is_not(None))).all()
        assert {record.rulebook.split("@")[0] for record in old} == {"default"}


def test_what_still_waits_to_go_out_tells_the_new_verdict(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what has gone out is not sent again: a re-evaluation of past days sends nothing."""
    monkeypatch.setenv("SONOMARK_REPORT_TO", "PACS@127.0.0.1:9")
    settings.cache_clear()
    waiting = select(Delivery).where(Delivery.state == DeliveryState.WAITING).order_by(Delivery.id)
    with db.begin() as session:
        fill(session, 2)
        sent, waits = session.scalars(waiting).all()
        deliveries.delivered(session, sent.id)
    assert reevaluate.run(db, asked(db, Range(), records=True))
    with db.read() as session:
        (anew,) = session.scalars(waiting).all()
        assert session.get_one(Delivery, waits.id).state is DeliveryState.OVERTAKEN
        assert anew.study_id == waits.study_id
        assert deliveries.verdict_of(session, anew).verdict is Verdict.NON_COMPLIANT


def test_doing_it_again_writes_nothing(db: Database) -> None:
    with db.begin() as session:
        fill(session, 2)
    reevaluate.run(db, asked(db, Range(), records=True))
    with db.read() as session:
        rows = len(session.scalars(select(VerdictRecord)).all())
        versions = session.scalars(select(Study.version)).all()
    reevaluate.run(db, asked(db, Range(), records=True))
    with db.read() as session:
        assert len(session.scalars(select(VerdictRecord)).all()) == rows
        assert session.scalars(select(Study.version)).all() == versions


def test_a_range_of_days_or_the_last_few(db: Database) -> None:
    with db.begin() as session:
        fill(session, 6)
    days = Range(start=now() - timedelta(days=4, hours=1), end=now() - timedelta(days=1, hours=1))
    for which, studies in ((days, 3), (Range(last=2), 2), (Range(start=now()), 0)):
        number = asked(db, which, records=False)
        assert reevaluate.run(db, number)
        with db.read() as session:
            assert reevaluations.get(session, number).done == studies


def test_a_step_that_died_is_taken_again_and_nothing_is_doubled(db: Database) -> None:
    with db.begin() as session:
        fill(session, 4)
    which = asked(db, Range(), records=True)
    with db.begin() as session:
        assert reevaluate.step(session, which, limit=3)
    with pytest.raises(ZeroDivisionError), db.begin() as session:
        reevaluate.step(session, which, limit=1)
        raise ZeroDivisionError
    assert reevaluate.run(db, which)
    with db.read() as session:
        found = reevaluations.get(session, which)
        assert (found.done, found.total) == (4, 4)
        assert found.changes["compliant>non_compliant"]["count"] == 2


@pytest.mark.parametrize("records", [True, False])
def test_a_study_that_cannot_be_judged_stops_no_other_and_is_counted(
    db: Database, monkeypatch: pytest.MonkeyPatch, records: bool
) -> None:
    with db.begin() as session:
        fill(session, 4)
    judge_study = evaluate.judge_study

    def poisoned(rulebook: Rulebook, study: StudyFacts) -> Outcome:
        if study.study_instance_uid == "1.2.2":
            raise ValueError("nobody foresaw this header")
        return judge_study(rulebook, study)

    monkeypatch.setattr(evaluate, "judge_study", poisoned)
    number = asked(db, Range(), records=records)
    assert reevaluate.run(db, number)
    with db.read() as session:
        row = reevaluations.get(session, number)
        assert (row.done, row.failed, row.finished_at is not None) == (4, 1, True)
        assert row.changes == {"compliant>non_compliant": {"count": 1, "studies": ["1.2.4"]}}
        found = Verdict.NON_COMPLIANT if records else Verdict.COMPLIANT
        assert verdicts(session) == [Verdict.COMPLIANT] * 3 + [found]


def test_two_processes_work_on_one_at_the_same_time(new_database: Callable[[str], str]) -> None:
    db = Database(new_database("slices"))
    Base.metadata.create_all(db.engine)
    with db.begin() as session:
        fill(session, 4)
    which = asked(db, Range(), records=True)
    with db.begin() as one:
        assert reevaluate.step(one, which, limit=1)  # and holds its slice until the block ends
        with db.begin() as other:
            first, second = (reevaluations.take(session, which) for session in (one, other))
            assert first is not None
            assert second is not None
            assert first.id != second.id
            assert reevaluations.next_studies(other, second, 9) == [3, 4]
            with db.begin() as third:
                assert not reevaluate.step(third, which)
    assert reevaluate.run(db, which)
    with db.read() as session:
        found = reevaluations.get(session, which)
        assert (found.done, found.total) == (4, 4)
        assert found.changes["compliant>non_compliant"]["count"] == 2
        assert verdicts(session) == [Verdict.COMPLIANT, Verdict.NON_COMPLIANT] * 2
    db.dispose()


def test_one_that_an_earlier_version_began_goes_on_where_it_stood(db: Database) -> None:
    with db.begin() as session:
        fill(session, 5)
    which = asked(db, Range(), records=True)
    with db.begin() as session:
        session.execute(delete(ReevaluationSlice))
        found = reevaluations.get(session, which)
        found.reached, found.done = 2, 2
    assert reevaluate.run(db, which)
    with db.read() as session:
        assert reevaluations.get(session, which).done == 5
        assert reevaluations.get(session, which).finished_at is not None
        assert verdicts(session)[:4] == [Verdict.COMPLIANT] * 3 + [Verdict.NON_COMPLIANT]


def test_cancelled(db: Database) -> None:
    with db.begin() as session:
        fill(session, 2)
    which = asked(db, Range(), records=True)
    with db.begin() as session:
        assert reevaluations.unfinished(session) == [which]
        reevaluations.cancel(session, which)
        assert reevaluations.unfinished(session) == []
    assert reevaluate.run(db, which)
    with db.read() as session:
        assert reevaluations.get(session, which).done == 0


def test_a_real_worker_answers_the_message(make_house: Callable[..., WorkingHouse]) -> None:
    house = make_house()
    db = database()
    with db.begin() as session:
        fill(session, 3)
    which = asked(db, Range(), records=True)
    house.start("work")
    reevaluate.ring(which)
    deadline = time.monotonic() + 60
    while True:
        with db.read() as session:
            found = reevaluations.get(session, which)
            if found.finished_at is not None:
                assert found.done == 3
                assert verdicts(session) == [Verdict.COMPLIANT, Verdict.NON_COMPLIANT, Verdict.COMPLIANT]
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_self_tests_and_unsettled_studies_are_left_alone(db: Database) -> None:
    with db.begin() as session:
        fill(session, 1, synthetic=True)
        assert reevaluate.ask(session, draft(session), Range(), "anna", records=False).total == 0


def test_what_does_not_exist(db: Database) -> None:
    with db.begin() as session:
        with pytest.raises(NotFound):
            reevaluate.ask(session, 99, Range(), "anna", records=True)
        with pytest.raises(NotFound):
            reevaluations.get(session, 99)
