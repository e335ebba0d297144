"""Second reads in the browser: blinded until answered, and a third person where two differ."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.db import double_reads, studies
from service.db.session import Database
from service.db.tables import Decision, DoubleReadState, Role
from tests.review import ward
from tests.review.test_pages import decide, decision_of


@pytest.fixture
def drawn(db: Database) -> str:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        double_reads.draw(session, studies.brief(session, uid), 1.0)
    return uid


def state_of(db: Database, uid: str) -> DoubleReadState:
    with db.read() as session:
        found = double_reads.of(session, studies.brief(session, uid))
        assert found is not None
        return found.state


def test_the_second_reader_sees_nothing_of_what_was_said(
    sign_in: Callable[..., TestClient], db: Database, drawn: str
) -> None:
    ann, bob = sign_in(Role.REVIEWER, "ophelia"), sign_in(Role.REVIEWER, "bob")
    decide(ann, drawn, "confirm", note="none to be seen")
    sent = bob.get(f"/studies/{drawn}")
    assert sent.status_code == 303 and sent.headers["location"] == f"/second-reads/{drawn}"
    page = bob.get(sent.headers["location"]).text
    assert "Is everything there that is required?" in page and "Breast body marker" in page
    for secret in ("ophelia", "none to be seen", "DOE", "is missing on image", "Flagged", '"kind": "caliper"', "0.94"):
        assert secret not in page, secret
    assert "not flagged" not in page, "nor that an image is well, of which nothing is said here"
    assert "Second reads" in bob.get("/worklist").text
    done = bob.post(f"/second-reads/{drawn}", data={"answer": "incomplete", "csrf": bob.headers["X-CSRF-Token"]})
    assert done.headers["location"] == "/second-reads?thanks=true" and state_of(db, drawn) is DoubleReadState.DONE
    assert "Confirmed" in bob.get(f"/studies/{drawn}").text, "afterwards it is a study as any other"


def test_a_third_person_decides_between_two_answers(
    sign_in: Callable[..., TestClient], db: Database, drawn: str
) -> None:
    ann, bob, cleo = (sign_in(Role.REVIEWER, name) for name in ("first", "bob", "cleo"))
    decide(ann, drawn, "confirm", note="none to be seen")
    bob.post(f"/second-reads/{drawn}", data={"answer": "complete", "note": "upper right"})
    assert state_of(db, drawn) is DoubleReadState.DISAGREED
    assert drawn in cleo.get("/second-reads").text and drawn not in bob.get("/second-reads").text
    page = cleo.get(f"/second-reads/{drawn}").text
    assert "Two readers differ" in page and "none to be seen" in page and "upper right" in page and "bob" not in page
    with db.read() as session:
        version = studies.brief(session, drawn).version
    cleo.post(f"/second-reads/{drawn}", data={"answer": "complete", "version": version})
    assert state_of(db, drawn) is DoubleReadState.DONE and decision_of(db, drawn) is Decision.OVERRIDE


def test_an_answer_too_late_says_so(sign_in: Callable[..., TestClient], db: Database, drawn: str) -> None:
    ann, bob, cleo = (sign_in(Role.REVIEWER, name) for name in ("first", "bob", "cleo"))
    decide(ann, drawn, "confirm")
    for who, status in ((bob, 303), (cleo, 409)):
        assert who.post(f"/second-reads/{drawn}", data={"answer": "incomplete"}).status_code == status
