"""What people say about marks: drawn, corrected, taken back, read out for training."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.db import audit
from service.db.session import Database
from service.db.tables import Annotation, Correction, Role
from tests.review import ward


def said(browser: TestClient, uid: str) -> list[dict]:
    return browser.get(f"/api/studies/{uid}").json()["corrections"]


def post(browser: TestClient, uid: str, frame: int = 1, **body: object):
    return browser.post(f"/api/instances/{uid}.1.1/frames/{frame}/corrections", json=body)


def mark_of(db: Database) -> int:
    with db.read() as session:
        return session.scalars(select(Annotation.id)).one()


def test_a_missed_mark_is_kept_with_its_drawer(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    made = post(reviewer, uid, kind="body_marker", box=[200, 150, 40, 30])
    assert made.status_code == 201, made.text
    [drawn] = said(reviewer, uid)
    assert (drawn["kind"], drawn["box"], drawn["frame"], drawn["annotation"], drawn["user"]) == (
        "body_marker", [200, 150, 40, 30], 1, None, "reviewer",
    )  # fmt: skip
    assert '"corrections"' in reviewer.get(f"/studies/{uid}").text
    with db.read() as session:
        assert audit.search(session, action="annotation.draw")[0].detail["kind"] == "body_marker"


def test_correcting_a_mark_says_both_that_it_is_none_and_where_it_is(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    made = post(reviewer, uid, kind="arrow", box=[61, 81, 90, 40], annotation=mark_of(db)).json()["corrections"]
    assert [(each["annotation"] is None, each["kind"]) for each in made] == [(False, "caliper"), (True, "arrow")]
    assert post(reviewer, uid, annotation=mark_of(db)).status_code == 409, "it was said already"


def test_moving_ones_own_box_keeps_the_old_one_as_history(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    first = post(reviewer, uid, kind="text", box=[0, 0, 10, 10]).json()["corrections"][0]["id"]
    post(reviewer, uid, kind="text", box=[5, 5, 10, 10], replaces=first)
    assert [each["box"] for each in said(reviewer, uid)] == [[5, 5, 10, 10]]
    with db.read() as session:
        assert [row.withdrawn_at is None for row in session.scalars(select(Correction))] == [False, True]


def test_what_is_replaced_is_of_the_same_study_and_in_the_audit_trail(reviewer: TestClient, db: Database) -> None:
    uid, other = ward.admit(db, 1), ward.admit(db, 2)
    first = post(reviewer, uid, kind="text", box=[0, 0, 10, 10]).json()["corrections"][0]["id"]
    elsewhere = post(reviewer, other, kind="text", box=[5, 5, 10, 10], replaces=first)
    assert elsewhere.status_code == 404 and "another study" in elsewhere.json()["cure"]
    assert [each["id"] for each in said(reviewer, uid)] == [first] and said(reviewer, other) == []
    assert post(reviewer, uid, kind="text", box=[5, 5, 10, 10], replaces=first).status_code == 201
    with db.read() as session:
        [withdrawn] = audit.search(session, action="annotation.withdraw")
    assert (withdrawn.subject, withdrawn.detail) == (f"{uid}.1.1", {"frame": 1, "correction": first})


def test_a_box_is_cut_to_the_frame_and_refused_outside(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    cut = post(reviewer, uid, kind="text", box=[-20, -10, 30, 40]).json()["corrections"][0]
    assert cut["box"] == [0, 0, 10, 30]
    for box in ([9000, 0, 10, 10], [5, 5, 1, 50], [5, 5, 0, 0], [50, 50, -20, 10]):
        assert post(reviewer, uid, kind="text", box=box).status_code == 422
    assert post(reviewer, uid, 2, kind="text", box=[0, 0, 9, 9]).status_code == 404
    assert post(reviewer, uid).status_code == 422
    assert post(reviewer, uid, kind="moustache", box=[0, 0, 9, 9]).status_code == 422


def test_only_its_drawer_or_a_reviewer_takes_a_box_back(sign_in: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    ann, bob = sign_in(Role.SONOGRAPHER, "ann"), sign_in(Role.SONOGRAPHER, "bob")
    number = post(ann, uid, kind="text", box=[0, 0, 10, 10]).json()["corrections"][0]["id"]
    assert bob.delete(f"/api/corrections/{number}").status_code == 403
    assert ann.delete(f"/api/corrections/{number}").status_code == 204
    assert ann.delete(f"/api/corrections/{number}").status_code == 404
    assert said(ann, uid) == []


def test_another_sites_boxes_are_not_there(sign_in: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1, institution="North")
    north, south = sign_in(Role.REVIEWER, "n", "North"), sign_in(Role.REVIEWER, "s", "South")
    number = post(north, uid, kind="text", box=[0, 0, 10, 10]).json()["corrections"][0]["id"]
    assert post(south, uid, kind="text", box=[0, 0, 10, 10]).status_code == 404
    assert south.delete(f"/api/corrections/{number}").status_code == 404
    assert south.get("/api/corrections").json()["corrections"] == []
    assert len(north.get("/api/corrections").json()["corrections"]) == 1


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_all_of_them_are_read_page_by_page(reviewer: TestClient, db: Database, limit: int) -> None:
    uid = ward.admit(db, 1)
    for x in range(3):
        post(reviewer, uid, kind="text", box=[x, 0, 10, 10])
    seen, after = [], 0
    while after is not None:
        page = reviewer.get(f"/api/corrections?after={after}&limit={limit}").json()
        seen += [each["box"][0] for each in page["corrections"]]
        after = page["next_after"]
    assert seen == [0, 1, 2]
