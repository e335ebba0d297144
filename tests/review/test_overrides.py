"""Overrides that a rule book wants read twice: no note, no override; and a second reader who knows of neither."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.compliance.outcome import Finding, FindingState, Outcome
from service.db import audit, double_reads, reviews, studies, users, verdicts
from service.db.session import Database
from service.db.tables import (
    Cause,
    Decision,
    DoubleRead,
    DoubleReadState,
    Reading,
    Role,
    Severity,
    Study,
    User,
    Verdict,
    now,
)
from service.report.agreement import agreement, sentence
from tests.review import ward
from tests.review.test_decisions import ask
from tests.review.test_pages import decide, decision_of

SignIn = Callable[..., TestClient]
MISSED = "present_missed"


@pytest.fixture
def heavy(db: Database) -> str:
    """A study that lacks what this hospital lets nobody override alone."""
    return ward.admit(db, 1, rulebook=ward.strict(db))


def read_of(db: Database, uid: str) -> DoubleRead | None:
    with db.read() as session:
        return double_reads.asked_for(session, studies.brief(session, uid))


def review(browser: TestClient, uid: str, version: int = 1, **given: str):
    body = {"decision": "override", "reason": MISSED, "version": version, **given}
    return browser.post(f"/api/studies/{uid}/reviews", json=body)


def test_the_form_says_it_before_anybody_overrides(reviewer: TestClient, db: Database, heavy: str) -> None:
    strict, usual = (reviewer.get(f"/studies/{uid}").text for uid in (heavy, ward.admit(db, 2)))
    assert "Breast body marker is major: say in the note what you see. A second reader is asked then." in strict
    assert strict.count('data-needs-note="Overriding this needs a note: say what you see') == len(
        reviews.REASONS[Decision.OVERRIDE]
    )
    assert "needed to override" in strict and "needed to override" not in usual
    assert "Overriding this needs a note" not in usual and "A second reader" not in usual
    rows = reviewer.get("/worklist").text
    assert rows.count("data-needs-note>") + rows.count("data-needs-note ") == 1


def test_without_a_note_nothing_is_overridden_by_whatever_way(
    reviewer: TestClient, token: SignIn, db: Database, heavy: str
) -> None:
    page = decide(reviewer, heavy, "override:present_missed", note="  ")
    assert page.status_code == 422 and "A major requirement is missing by the rules" in page.text
    answer = review(token(), heavy)
    assert answer.status_code == 422 and "needs a note" in answer.json()["detail"]
    reviewer.get(f"/studies/{heavy}")
    refused = ask(reviewer, "override:present_missed", (heavy, 1)).json()["refused"]
    assert refused[0]["sentence"].startswith("DOE, Jane: A major requirement") and "Open it" in refused[0]["sentence"]
    assert decision_of(db, heavy) is None and read_of(db, heavy) is None
    assert ask(reviewer, "confirm", (heavy, 1)).json()["refused"] == [], "a flag is confirmed as ever"


def test_a_second_reader_is_asked_who_knows_of_nothing(sign_in: SignIn, db: Database, heavy: str) -> None:
    ann, bob = sign_in(Role.REVIEWER, "ophelia"), sign_in(Role.REVIEWER, "bob")
    assert review(ann, heavy, note="upper left corner").status_code == 201
    assert "A second reader is awaited." in ann.get(f"/studies/{heavy}").text
    assert ann.get(f"/api/studies/{heavy}").json()["second_read"] == "waiting"
    assert heavy not in ann.get("/second-reads").text, "nobody reads after themselves"
    assert heavy in bob.get("/second-reads").text and "Second reads" in bob.get("/worklist").text
    assert bob.get(f"/studies/{heavy}").headers["location"] == f"/second-reads/{heavy}"
    page = bob.get(f"/second-reads/{heavy}").text
    for secret in ("ophelia", "upper left corner", "DOE", "verdict is", "verrid", "strict@"):
        assert secret not in page, secret
    bob.post(f"/second-reads/{heavy}", data={"answer": "complete"})
    assert "A second reader sees it so, too." in ann.get(f"/studies/{heavy}").text
    with db.read() as session:
        (event,) = audit.search(session, action="review.override")
        assert event.detail["second_reader"] == "asked" and audit.verify(session).whole
        told = agreement(session, ward.LONG_AGO, now())
    assert told.readers.n == told.waiting == 0, "it is no sample"
    assert told.as_json()["overrides"] == {"read": 1, "agreed": 1, "disagreed": 0, "adjudicated": 0, "waiting": 0}
    assert "Overrides read by a second reader: 1, 1 seen alike" in sentence(told)


def test_a_third_person_decides_where_the_second_differs(sign_in: SignIn, db: Database, heavy: str) -> None:
    ann, bob, cleo = (sign_in(Role.REVIEWER, name) for name in ("ann", "bob", "cleo"))
    review(ann, heavy, note="there")
    bob.post(f"/api/double-reads/{heavy}", json={"answer": "incomplete"})
    assert "a third person decides" in ann.get(f"/studies/{heavy}").text
    counted = {
        name: 'id="second-reads"' in who.get("/worklist").text
        for name, who in zip("abc", (ann, bob, cleo), strict=True)
    }
    assert counted == {"a": False, "b": False, "c": True}, "the third person hears of it"
    cleo.post(f"/api/double-reads/{heavy}/adjudication", json={"answer": "incomplete", "version": 2})
    assert decision_of(db, heavy) is Decision.CONFIRM
    assert "a third person&#39;s word: something is missing." in ann.get(f"/studies/{heavy}").text
    assert review(ann, heavy, version=3, note="there after all").status_code == 201
    again = read_of(db, heavy)
    assert again is not None and again.state is DoubleReadState.WAITING, "who insists is read once more"
    with db.read() as session:
        newest = audit.search(session, action="review.override")[0]
        assert newest.detail["read_before"] == {"first": "complete", "second": "incomplete", "third": "incomplete"}


def test_what_the_third_person_overrides_is_read_by_nobody_else(sign_in: SignIn, db: Database, heavy: str) -> None:
    ann, bob, cleo = (sign_in(Role.REVIEWER, name) for name in ("ann", "bob", "cleo"))
    review(ann, heavy, note="there")
    bob.post(f"/api/double-reads/{heavy}", json={"answer": "incomplete"})
    word = cleo.post(f"/api/double-reads/{heavy}/adjudication", json={"answer": "complete", "version": 2})
    assert word.json() == {"state": "done"} and decision_of(db, heavy) is Decision.OVERRIDE
    read = read_of(db, heavy)
    assert read is not None and read.state is DoubleReadState.DONE


@pytest.mark.parametrize(
    ("severity", "verdict", "least"),
    [
        (Severity.MAJOR, Verdict.NON_COMPLIANT, "critical"),
        (Severity.MAJOR, Verdict.INDETERMINATE, "major"),
        (Severity.MAJOR, Verdict.COMPLIANT, "major"),
    ],
)
def test_what_is_overridden_as_ever(
    reviewer: TestClient, db: Database, severity: Severity, verdict: Verdict, least: str
) -> None:
    """What weighs less, what the network was unsure of, and a pass that somebody doubts."""
    uid = ward.admit(db, 1, verdict, severity=severity, rulebook=ward.strict(db, least))
    assert review(reviewer, uid).status_code == 201 and read_of(db, uid) is None


class TestUndone:
    """Who takes an override back, or decides otherwise, is read by nobody."""

    @pytest.fixture
    def people(self, db: Database, heavy: str) -> tuple[User, User]:
        with db.begin() as session:
            return users.create_user(session, "ann", Role.REVIEWER), users.create_user(session, "bob", Role.REVIEWER)

    def override(self, db: Database, uid: str, user: User) -> None:
        with db.begin() as session:
            study = studies.brief(session, uid)
            reviews.decide(session, study, user, Decision.OVERRIDE, MISSED, "there", study.version)

    def judge(self, session: Session, study: Study, rules: str, verdict: Verdict, *lacks: str) -> None:
        by = verdicts.Versions("test@0", "t0", rules, "0")
        lacking = tuple(Finding(name, FindingState.MISSING, Severity.MAJOR, "s") for name in lacks)
        verdicts.record(session, study.id, None, Outcome(verdict, lacking), by)
        verdicts.settle_all(session, {study.id: verdict})

    def test_by_withdrawing(self, db: Database, heavy: str, people: tuple[User, User]) -> None:
        self.override(db, heavy, people[0])
        with db.begin() as session:
            reviews.withdraw(session, studies.brief(session, heavy), people[0])
        assert read_of(db, heavy) is None

    def test_by_another_decision_and_back(self, db: Database, heavy: str, people: tuple[User, User]) -> None:
        ann, bob = people
        self.override(db, heavy, ann)
        with db.begin() as session:
            study = studies.brief(session, heavy)
            reviews.decide(session, study, ann, Decision.CONFIRM, "", "", study.version)
        assert read_of(db, heavy) is None
        with db.begin() as session:
            reviews.withdraw(session, studies.brief(session, heavy), ann)
        read = read_of(db, heavy)
        assert read is not None and (read.first_user_id, read.first_note) == (ann.id, "there")
        with db.read() as session:
            assert double_reads.needs_second_read(session, studies.brief(session, heavy), bob)

    @pytest.mark.parametrize("again", ["by a late image", "by other rules"])
    def test_by_another_verdict(self, db: Database, heavy: str, people: tuple[User, User], again: str) -> None:
        self.override(db, heavy, people[0])
        with db.begin() as session:
            study = studies.brief(session, heavy)
            by = verdicts.Versions("test@0", "t0", "strict@2", "0")
            verdicts.record(session, study.id, None, Outcome(Verdict.COMPLIANT, ()), by)
            if again == "by a late image":
                verdicts.settle(session, study, Verdict.COMPLIANT, changed=True)
            else:
                verdicts.settle_all(session, {study.id: Verdict.COMPLIANT})
        assert read_of(db, heavy) is None

    def test_after_a_second_reader_saw_it_otherwise(
        self, db: Database, heavy: str, people: tuple[User, User], sign_in: SignIn
    ) -> None:
        """No third person is asked about it; the next override is read like a first one."""
        self.override(db, heavy, people[0])
        with db.begin() as session:
            study = studies.brief(session, heavy)
            double_reads.answer(session, study, people[1], Reading.INCOMPLETE)
            former = verdicts.standing(session, study.id)
            self.judge(session, study, former.rulebook, Verdict.NON_COMPLIANT, "breast-body-marker", "calipers")
        cleo = sign_in(Role.REVIEWER, "cleo")
        assert 'id="second-reads"' not in cleo.get("/worklist").text
        assert cleo.get("/api/double-reads/disagreements").json() == []
        assert cleo.get(f"/api/double-reads/{heavy}/disagreement").status_code == 404
        with db.begin() as session:
            study = studies.brief(session, heavy)
            reviews.decide(session, study, people[1], Decision.CONFIRM, "", "", study.version)
        assert "the override ended before a third person decided" in cleo.get(f"/studies/{heavy}").text
        self.override(db, heavy, people[0])
        read = read_of(db, heavy)
        assert read is not None and (read.state, read.second_answer) == (DoubleReadState.WAITING, None)

    def test_not_by_an_image_that_changes_nothing(self, db: Database, heavy: str, people: tuple[User, User]) -> None:
        self.override(db, heavy, people[0])
        with db.begin() as session:
            study = studies.brief(session, heavy)
            study.last_received_at = now()
            verdicts.settle(session, study, Verdict.NON_COMPLIANT, changed=True)
            double_reads.draw(session, study, 0.0)
            read = double_reads.answer(session, study, people[1], Reading.COMPLETE)
            assert read.state is DoubleReadState.DONE

    def test_what_was_read_is_read_again_when_more_is_asked(
        self, db: Database, heavy: str, people: tuple[User, User]
    ) -> None:
        self.override(db, heavy, people[0])
        with db.begin() as session:
            study = studies.brief(session, heavy)
            double_reads.answer(session, study, people[1], Reading.COMPLETE)
            former = verdicts.standing(session, study.id)
            self.judge(session, study, former.rulebook, Verdict.NON_COMPLIANT, "breast-body-marker", "calipers")
        self.override(db, heavy, people[0])
        read = read_of(db, heavy)
        assert read is not None and read.state is DoubleReadState.WAITING


def test_one_of_the_sample_stays_in_the_sample(sign_in: SignIn, db: Database, heavy: str) -> None:
    with db.begin() as session:
        double_reads.draw(session, studies.brief(session, heavy), 1.0)
    review(sign_in(Role.REVIEWER, "ann"), heavy, note="there")
    with db.read() as session:
        drawn = double_reads.of(session, session.query(Study).one())
        assert drawn is not None and (drawn.cause, drawn.first_answer) == (Cause.SAMPLE, Reading.COMPLETE)
