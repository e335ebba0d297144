"""Blinded second answers over the API."""

from collections.abc import Callable

from fastapi.testclient import TestClient

from service.db import double_reads, studies
from service.db.session import Database
from service.db.tables import Decision, Role
from tests.review import ward

SignIn = Callable[..., TestClient]


def drawn(db: Database) -> str:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        double_reads.draw(session, studies.brief(session, uid), 1.0)
    return uid


def test_the_second_reader_sees_the_images_and_nothing_that_was_said_of_them(db: Database, sign_in: SignIn) -> None:
    uid = drawn(db)
    anna, ben = sign_in(Role.REVIEWER, "anna"), sign_in(Role.REVIEWER, "ben")
    assert anna.post(f"/api/double-reads/{uid}", json={"answer": "complete", "note": "fine"}).status_code == 201
    assert [each["study_instance_uid"] for each in ben.get("/api/double-reads").json()] == [uid]
    seen = ben.get(f"/api/double-reads/{uid}")
    assert seen.status_code == 200 and seen.json()["images"][0]["sop_instance_uid"] == f"{uid}.1.1"
    assert ben.get(seen.json()["images"][0]["image"]).status_code == 200
    for word in ("verdict", "finding", "score", "annotation", "decision", "fine", "complete", "SONO", "DOE"):
        assert word not in seen.text
    assert anna.get(f"/api/double-reads/{uid}").status_code == 404
    assert anna.get("/api/double-reads").json() == []


def test_a_disagreement_is_decided_by_a_third_person(db: Database, sign_in: SignIn) -> None:
    uid = drawn(db)
    anna, ben, cora = (sign_in(Role.REVIEWER, name) for name in ("anna", "ben", "cora"))
    anna.post(f"/api/double-reads/{uid}", json={"answer": "complete"})
    assert ben.post(f"/api/double-reads/{uid}", json={"answer": "incomplete"}).json() == {"state": "disagreed"}
    assert ben.get("/api/double-reads/disagreements").json() == []
    seen = cora.get(f"/api/double-reads/{uid}/disagreement").json()
    assert [each["answer"] for each in seen["answers"]] == ["complete", "incomplete"]
    word = {"answer": "complete", "note": "The marker is on image 1.", "version": seen["version"]}
    stale = cora.post(f"/api/double-reads/{uid}/adjudication", json={**word, "version": seen["version"] + 1})
    assert stale.status_code == 409
    assert cora.post(f"/api/double-reads/{uid}/adjudication", json=word).json() == {"state": "done"}
    with db.read() as session:
        assert studies.brief(session, uid).decision is Decision.OVERRIDE


def test_a_third_answer_comes_too_late(db: Database, sign_in: SignIn) -> None:
    uid = drawn(db)
    for name, status in (("anna", 201), ("ben", 201), ("cora", 409)):
        answer = sign_in(Role.REVIEWER, name).post(f"/api/double-reads/{uid}", json={"answer": "complete"})
        assert answer.status_code == status
    told = sign_in(Role.REVIEWER).get("/api/reports/agreement?from=2020-01-01").json()
    assert told["readers"]["n"] == told["readers"]["agreed"] == 1
