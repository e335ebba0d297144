"""Double reads: who is drawn, who may answer, what becomes of two answers."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from service.db import double_reads, reviews
from service.db.session import Database
from service.db.tables import Base, Decision, DoubleRead, DoubleReadState, Reading, Study, User, Verdict, now
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


class TestAtTheSameMoment:
    """Two who write to one double read do so one after the other, on a database where both could."""

    @pytest.fixture
    def shared(self, new_database: Callable[[str], str]) -> Iterator[Database]:
        found = Database(new_database("moments"))
        Base.metadata.create_all(found.engine)
        yield found
        found.dispose()

    def waits(self, db: Database) -> None:
        """Returns once somebody waits for a row that somebody else holds."""
        blocked = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'moments'")
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with db.read() as session:
                if session.scalar(blocked):
                    return
            time.sleep(0.02)
        pytest.fail("nobody waits")

    def confirm(self, db: Database, reader: int) -> None:
        with db.begin() as session:
            study = session.scalars(select(Study)).one()
            reviews.decide(session, study, session.get_one(User, reader), Decision.CONFIRM, "", "", study.version)

    def drawn(self, db: Database) -> DoubleRead:
        with db.read() as session:
            return session.scalars(select(DoubleRead)).one()

    def decided_while_answered(self, shared: Database, decides: User, answers: User) -> DoubleRead:
        """The read after one person answered, and another decided before that was committed."""
        with ThreadPoolExecutor(1) as other:
            with shared.begin() as session:
                double_reads.answer(session, session.scalars(select(Study)).one(), answers, COMPLETE)
                deciding = other.submit(self.confirm, shared, decides.id)
                self.waits(shared)
            deciding.result()
        return self.drawn(shared)

    def test_a_decision_does_not_write_over_an_answer(self, shared: Database) -> None:
        with shared.begin() as session:
            _, (anna, ben, _) = ward(session)
        found = self.decided_while_answered(shared, decides=anna, answers=ben)
        assert (found.first_user_id, found.first_answer, found.first_blinded) == (ben.id, COMPLETE, True)

    def test_nor_does_a_second_thought_over_the_second_answer(self, shared: Database) -> None:
        with shared.begin() as session:
            study, (anna, ben, _) = ward(session)
            reviews.decide(session, study, anna, Decision.OVERRIDE, "not_required", "", study.version)
        found = self.decided_while_answered(shared, decides=anna, answers=ben)
        assert (found.state, found.first_answer, found.second_answer) == (DoubleReadState.DONE, COMPLETE, COMPLETE)

    def test_a_late_image_does_not_take_the_first_of_two_answers(self, shared: Database) -> None:
        with shared.begin() as session:
            study, (anna, ben, _) = ward(session)
            double_reads.answer(session, study, anna, COMPLETE)

        def late() -> None:
            with shared.begin() as session:
                study = session.scalars(select(Study)).one()
                study.last_received_at = now() + timedelta(seconds=1)
                double_reads.draw(session, study, 1.0)

        with ThreadPoolExecutor(1) as other:
            with shared.begin() as session:
                double_reads.answer(session, session.scalars(select(Study)).one(), ben, COMPLETE)
                judging = other.submit(late)
                self.waits(shared)
            judging.result()
        found = self.drawn(shared)
        assert (found.first_answer, found.second_answer) == (COMPLETE, COMPLETE)

    def test_the_third_person_takes_the_study_first_as_a_decision_does(self, shared: Database) -> None:
        with shared.begin() as session:
            study, (anna, ben, cora) = ward(session)
            double_reads.answer(session, study, anna, COMPLETE)
            double_reads.answer(session, study, ben, INCOMPLETE)

        def adjudicate() -> None:
            with shared.begin() as session:
                double_reads.adjudicate(session, session.scalars(select(Study)).one(), cora, COMPLETE)

        with ThreadPoolExecutor(1) as other:
            with shared.begin() as session:
                session.execute(select(Study.id).with_for_update())
                deciding = other.submit(adjudicate)
                self.waits(shared)
                free = select(DoubleRead.study_id).with_for_update(skip_locked=True)
                assert session.scalars(free).all() == [study.id], "what it needs next nobody holds"
            deciding.result()
        assert self.drawn(shared).state is DoubleReadState.DONE
