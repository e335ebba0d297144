"""Cohen's kappa on double reads, against figures worked out by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from service.db import double_reads
from service.db.session import Database
from service.db.tables import Reading, Study, User, Verdict, now
from service.report.agreement import agreement, compared, in_words, sentence

YES, NO = Reading.COMPLETE, Reading.INCOMPLETE
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)


def test_the_textbook_table() -> None:
    """20 and 15 agreed, 5 and 10 not: kappa 0.4 (Cohen's grant-proposal example)."""
    found = compared([(YES, YES)] * 20 + [(YES, NO)] * 5 + [(NO, YES)] * 10 + [(NO, NO)] * 15)
    assert (found.n, found.agreed, found.rate) == (50, 35, 0.7)
    assert found.kappa == pytest.approx(0.4)
    low, high = found.kappa_interval or (0, 0)
    assert low < found.kappa < high  # against references: test_statistics.py
    assert found.as_json()["words"] == "fair"
    assert sum(cell["studies"] for cell in found.as_json()["matrix"]) == 50


def test_where_kappa_says_nothing() -> None:
    assert compared([]).kappa is None
    assert compared([(YES, YES)] * 9).kappa is None  # chance alone would agree as often
    assert in_words(None) == "not defined"
    assert in_words(-0.1) == "poor" and in_words(0.85) == "almost perfect"


def test_readers_and_machine_as_of_a_moment(db: Database) -> None:
    answers = [(YES, YES), (NO, NO), (YES, NO)]
    with db.begin() as session:
        anna, ben, cora = (User(name=name) for name in ("anna", "ben", "cora"))
        session.add_all([anna, ben, cora])
        for number, (one, other) in enumerate(answers):
            study = Study(
                study_instance_uid=f"1.{number}",
                verdict=Verdict.NON_COMPLIANT,
                first_received_at=START + timedelta(days=1),
                last_received_at=START + timedelta(days=1),
            )
            session.add(study)
            session.flush()
            double_reads.draw(session, study, 1.0)
            double_reads.answer(session, study, anna, one)
            double_reads.answer(session, study, ben, other)
        before = now()
        double_reads.adjudicate(session, study, cora, NO)
        found = agreement(session, START, END)
        earlier = agreement(session, START, END, before)
        nothing = agreement(session, START, END, START)
    assert (found.readers.n, found.readers.agreed, found.disagreed, found.adjudicated) == (3, 2, 1, 1)
    assert (found.machine.n, found.machine.agreed) == (3, 2)  # said incomplete, as the second reader did twice
    assert (earlier.readers.n, earlier.adjudicated) == (3, 0)
    assert (found.waiting, earlier.waiting, nothing.waiting) == (0, 1, 0)
    assert sentence(found).startswith("Double reads: 3, readers agree on 2, Cohen's kappa 0.40 (")
    assert sentence(nothing) == "Double reads: none complete, 0 waiting."
    assert nothing.readers.n == 0 and nothing.as_json()["readers"]["kappa"] is None
