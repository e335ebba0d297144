"""Double reads: who is drawn, who may answer, what becomes of two answers."""

from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from service.db import double_reads, reviews
from service.db.session import Database
from service.db.tables import Decision, DoubleReadState, Reading, Study, User, Verdict, now
from service.errors import Conflict, NotAllowed

COMPLETE, INCOMPLETE = Reading.COMPLETE, Reading.INCOMPLETE


def ward(session: Session, verdict: Verdict = Verdict.NON_COMPLIANT) -> tuple[Study, list[User]]:
    """A drawn study and three readers."""
    study = Study(
        study_instance_uid="1.2", verdict=verdict, settled=True, last_received_at=now() - timedelta(minutes=5)
    )
    readers = [User(name=name) for name in ("anna", "ben", "cora")]
    session.add_all([study, *readers])
    session.flush()
    double_reads.draw(session, study, share=1.0)
    return study, readers


def test_a_share_of_the_studies_is_drawn_always_the_same() -> None:
    uids = [f"1.2.{number}" for number in range(5000)]
    drawn = {uid for uid in uids if double_reads.is_drawn(uid, 0.1)}
    assert 400 < len(drawn) < 600
    assert drawn == {uid for uid in uids if double_reads.is_drawn(uid, 0.1)}
    assert drawn < {uid for uid in uids if double_reads.is_drawn(uid, 0.2)}
    assert not any(double_reads.is_drawn(uid, 0.0) for uid in uids)
    assert all(double_reads.is_drawn(uid, 1.0) for uid in uids)


@pytest.mark.parametrize("columns", [{"verdict": None}, {"verdict": Verdict.NOT_APPLICABLE}, {"synthetic": True}])
def test_what_nobody_needs_to_read_twice(db: Database, columns: dict[str, object]) -> None:
    with db.begin() as session:
        study = Study(study_instance_uid="1.2", **{"verdict": Verdict.COMPLIANT, **columns})
        session.add(study)
        session.flush()
        double_reads.draw(session, study, share=1.0)
        assert double_reads.of(session, study) is None


def test_two_who_agree(db: Database) -> None:
    with db.begin() as session:
        study, (anna, ben, cora) = ward(session)
        assert double_reads.answer(session, study, anna, COMPLETE).state is DoubleReadState.WAITING
        assert not double_reads.needs_second_read(session, study, anna)
        assert double_reads.needs_second_read(session, study, ben)
        assert [each.study_id for each in double_reads.waiting_for(session, ben)] == [study.id]
        assert double_reads.waiting_for(session, anna) == []
        counts = [double_reads.count_waiting_for(session, each, site) for each in (anna, ben) for site in ("", "North")]
        assert counts == [0, 0, 1, 0]
        assert double_reads.answer(session, study, ben, COMPLETE).state is DoubleReadState.DONE
        with pytest.raises(Conflict):
            double_reads.answer(session, study, cora, COMPLETE)


def test_nobody_is_their_own_second_reader(db: Database) -> None:
    with db.begin() as session:
        study, (anna, *_) = ward(session)
        double_reads.answer(session, study, anna, COMPLETE)
        with pytest.raises(Conflict):
            double_reads.answer(session, study, anna, INCOMPLETE)


def test_two_who_differ_and_the_third(db: Database) -> None:
    with db.begin() as session:
        study, (anna, ben, cora) = ward(session)
        double_reads.answer(session, study, anna, COMPLETE, "all there")
        drawn = double_reads.answer(session, study, ben, INCOMPLETE)
        assert drawn.state is DoubleReadState.DISAGREED
        assert double_reads.readers(drawn) == [(COMPLETE, "all there"), (INCOMPLETE, "")]
        assert double_reads.disagreements(session, ben) == []
        assert [each.study_id for each in double_reads.disagreements(session, cora)] == [study.id]
        counts = [double_reads.count_disagreements(session, *of) for of in ((anna,), (ben,), (cora,), (cora, "North"))]
        assert counts == [0, 0, 1, 0]
        with pytest.raises(NotAllowed):
            double_reads.adjudicate(session, study, anna, COMPLETE)
        assert double_reads.adjudicate(session, study, cora, INCOMPLETE).state is DoubleReadState.DONE
        with pytest.raises(Conflict):
            double_reads.adjudicate(session, study, cora, INCOMPLETE)


@pytest.mark.parametrize(
    ("verdict", "decision", "said"),
    [
        (Verdict.NON_COMPLIANT, Decision.CONFIRM, INCOMPLETE),
        (Verdict.NON_COMPLIANT, Decision.OVERRIDE, COMPLETE),
        (Verdict.INDETERMINATE, Decision.RETAKE, INCOMPLETE),
        (Verdict.COMPLIANT, Decision.CONFIRM, COMPLETE),
        (Verdict.COMPLIANT, Decision.OVERRIDE, INCOMPLETE),
    ],
)
def test_an_ordinary_decision_is_the_first_answer(
    db: Database, verdict: Verdict, decision: Decision, said: Reading
) -> None:
    with db.begin() as session:
        study, (anna, ben, _) = ward(session, verdict)
        reason = "" if decision is Decision.CONFIRM else "other"
        reviews.decide(session, study, anna, decision, reason, "because", study.version)
        drawn = double_reads.of(session, study)
        assert drawn is not None
        assert (drawn.first_answer, drawn.first_blinded, drawn.verdict) == (said, False, verdict)
        assert double_reads.answer(session, study, ben, said).state is DoubleReadState.DONE


def test_a_decision_taken_back_is_no_answer(db: Database) -> None:
    with db.begin() as session:
        study, (anna, *_) = ward(session)
        reviews.decide(session, study, anna, Decision.CONFIRM, "", "", study.version)
        session.refresh(study)
        reviews.withdraw(session, study, anna)
        drawn = double_reads.of(session, study)
        assert drawn is not None and drawn.first_answer is None


def test_an_answer_before_a_late_image_is_about_another_study(db: Database) -> None:
    with db.begin() as session:
        study, (anna, ben, _) = ward(session)
        double_reads.answer(session, study, anna, COMPLETE)
        study.last_received_at = now() + timedelta(seconds=1)
        double_reads.draw(session, study, share=1.0)
        drawn = double_reads.answer(session, study, ben, INCOMPLETE)
        assert drawn.state is DoubleReadState.WAITING and drawn.first_user_id == ben.id


def test_a_site_sees_its_own(db: Database) -> None:
    with db.begin() as session:
        study, (anna, *_) = ward(session)
        study.institution = "North"
        session.flush()
        assert double_reads.waiting_for(session, anna, site="South") == []
        assert len(double_reads.waiting_for(session, anna, site="North")) == 1


def test_a_study_that_was_not_drawn(db: Database) -> None:
    with db.begin() as session:
        study, reader = Study(study_instance_uid="1.3"), User(name="dora")
        session.add_all([study, reader])
        session.flush()
        with pytest.raises(NotAllowed):
            double_reads.answer(session, study, reader, COMPLETE)
