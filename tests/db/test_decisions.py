"""Which decisions stand when a study is judged anew: by a late image or by other rules, it makes no difference."""

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from service.compliance.outcome import Finding, FindingState, Outcome, Severity
from service.db import double_reads, reviews, verdicts
from service.db.session import Database
from service.db.tables import Decision, DoubleReadState, Reading, Study, User, Verdict, now
from service.db.tables.studies import DECIDED, FLAGGED, QUIET
from service.errors import Conflict
from service.report.agreement import agreement

BAD, GOOD = Verdict.NON_COMPLIANT, Verdict.COMPLIANT
Judge = Callable[..., None]


@pytest.fixture(params=["by a late image", "by other rules"])
def judge(request: pytest.FixtureRequest) -> Judge:
    """Judges the study anew: its verdict, what it lacks, and by which version of the rules."""

    def anew(session: Session, study: Study, verdict: Verdict, *lacking: str, rules: str = "r@1") -> None:
        findings = tuple(Finding(name, FindingState.MISSING, Severity.MAJOR, "s") for name in lacking)
        by = verdicts.Versions("n@1", "t", rules, "1")
        changed = verdicts.record(session, study.id, None, Outcome(verdict, findings), by)
        if request.param == "by a late image" or study.verdict is None:
            verdicts.settle(session, study, verdict, changed=changed)
        elif changed:
            verdicts.settle_all(session, {study.id: verdict})
        session.refresh(study)

    return anew


def ward(session: Session) -> tuple[Study, User, User]:
    """A study that nobody judged yet, and two readers."""
    study, anna, ben = Study(study_instance_uid="1.2"), User(name="anna"), User(name="ben")
    session.add_all([study, anna, ben])
    session.flush()
    return study, anna, ben


def decide(session: Session, study: Study, user: User, decision: Decision, reason: str = "") -> None:
    reviews.decide(session, study, user, decision, reason, "", study.version)
    session.refresh(study)


def test_another_verdict_puts_it_before_a_person_again(any_db: Database, judge: Judge) -> None:
    with any_db.begin() as session:
        study, anna, _ = ward(session)
        judge(session, study, GOOD)
        decide(session, study, anna, Decision.CONFIRM)
        judge(session, study, BAD, "marker")
        assert (study.decision, study.rank) == (None, FLAGGED)
        assert reviews.standing(session, study) == []
        judge(session, study, GOOD)
        assert (study.decision, study.rank) == (None, QUIET), "nor does it stand again"


def test_so_does_a_lack_that_nobody_saw(any_db: Database, judge: Judge) -> None:
    with any_db.begin() as session:
        study, anna, _ = ward(session)
        judge(session, study, BAD, "calipers")
        decide(session, study, anna, Decision.OVERRIDE, "not_required")
        judge(session, study, BAD, "calipers", rules="r@2")
        assert study.rank == DECIDED, "the same by other rules"
        judge(session, study, BAD, "marker", "calipers")
        assert (study.decision, study.rank) == (None, FLAGGED)


def test_what_no_longer_stands_is_neither_taken_back_nor_put_back(any_db: Database, judge: Judge) -> None:
    with any_db.begin() as session:
        study, anna, ben = ward(session)
        judge(session, study, BAD, "calipers")
        decide(session, study, anna, Decision.OVERRIDE, "not_required")
        judge(session, study, GOOD)
        with pytest.raises(Conflict):
            reviews.withdraw(session, study, anna)
        judge(session, study, BAD, "calipers")
        decide(session, study, ben, Decision.CONFIRM)
        reviews.withdraw(session, study, ben)
        session.refresh(study)
        assert (study.decision, study.rank) == (None, FLAGGED)


def test_of_one_verdict_the_earlier_decision_is_put_back(any_db: Database, judge: Judge) -> None:
    with any_db.begin() as session:
        study, anna, ben = ward(session)
        judge(session, study, BAD, "calipers")
        decide(session, study, anna, Decision.OVERRIDE, "not_required")
        judge(session, study, BAD, "calipers", rules="r@2")
        decide(session, study, ben, Decision.CONFIRM)
        reviews.withdraw(session, study, ben)
        session.refresh(study)
        assert study.decision is Decision.OVERRIDE


def test_a_retake_of_what_nobody_had_judged_stands_until_it_is_judged_otherwise(any_db: Database, judge: Judge) -> None:
    with any_db.begin() as session:
        study, anna, _ = ward(session)
        decide(session, study, anna, Decision.RETAKE, "image_quality")
        judge(session, study, GOOD)
        assert study.decision is Decision.RETAKE
        judge(session, study, BAD, "marker")
        assert study.decision is None


def test_it_is_no_first_answer_of_a_double_read_any_longer(any_db: Database, judge: Judge) -> None:
    with any_db.begin() as session:
        study, anna, ben = ward(session)
        judge(session, study, BAD, "calipers")
        double_reads.draw(session, study, 1.0)
        decide(session, study, anna, Decision.CONFIRM)
        judge(session, study, GOOD)
        drawn = double_reads.of(session, study)
        assert drawn is not None and (drawn.first_answer, drawn.verdict) == (None, None)
        double_reads.answer(session, study, anna, Reading.COMPLETE)
        judge(session, study, BAD, "calipers")
        assert drawn.first_answer is Reading.COMPLETE, "a blinded answer was not about the verdict"
        assert double_reads.answer(session, study, ben, Reading.COMPLETE).state is DoubleReadState.DONE


def test_nobody_is_asked_who_was_right_about_what_has_ended(any_db: Database, judge: Judge) -> None:
    before = now()
    with any_db.begin() as session:
        study, anna, ben = ward(session)
        cleo = User(name="cleo")
        session.add(cleo)
        judge(session, study, BAD, "calipers")
        double_reads.draw(session, study, 1.0)
        decide(session, study, anna, Decision.OVERRIDE, "not_required")
        double_reads.answer(session, study, ben, Reading.INCOMPLETE)
        differed = now()
        judge(session, study, BAD, "calipers", rules="r@2")
        assert double_reads.count_disagreements(session, cleo) == 1, "the same verdict"
        judge(session, study, GOOD)
        assert double_reads.count_disagreements(session, cleo) == 0
        with pytest.raises(Conflict):
            double_reads.adjudicate(session, study, cleo, Reading.COMPLETE)
        told = {at: agreement(session, before, now(), at) for at in (differed, now())}
        assert [(each.disagreed, each.adjudicated, each.waiting) for each in told.values()] == [(1, 0, 1), (1, 0, 0)]


def test_two_blinded_readers_who_differ_were_not_about_the_verdict(any_db: Database, judge: Judge) -> None:
    with any_db.begin() as session:
        study, anna, ben = ward(session)
        cleo = User(name="cleo")
        session.add(cleo)
        judge(session, study, BAD, "calipers")
        double_reads.draw(session, study, 1.0)
        double_reads.answer(session, study, anna, Reading.COMPLETE)
        double_reads.answer(session, study, ben, Reading.INCOMPLETE)
        decide(session, study, cleo, Decision.CONFIRM)
        judge(session, study, GOOD)
        assert study.decision is None and double_reads.count_disagreements(session, cleo) == 1
