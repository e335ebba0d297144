"""Decisions from the worklist: several at once, none unseen, one refusal holds no other up."""

from collections.abc import Callable

from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.db import audit
from service.db.session import Database
from service.db.tables import Decision, Role, Study
from tests.review import ward


def ask(browser: TestClient, choice: str, *chosen: tuple[str, int]):
    rows = [{"uid": uid, "version": version} for uid, version in chosen]
    return browser.post("/worklist/decisions", json={"choice": choice, "studies": rows})


def standing(db: Database) -> list[Decision | None]:
    with db.read() as session:
        return list(session.scalars(select(Study.decision).order_by(Study.id)))


def test_what_was_opened_is_decided_and_undone(reviewer: TestClient, db: Database) -> None:
    one, two, unseen = (ward.admit(db, number) for number in (1, 2, 3))
    for uid in (one, two):
        reviewer.get(f"/studies/{uid}")
    assert reviewer.get("/worklist").text.count(">seen<") == 2
    answer = ask(reviewer, "override:not_required", (one, 1), (two, 1), (unseen, 1)).json()
    assert [each["uid"] for each in answer["done"]] == [one, two]
    assert (
        "DOE, Jane was not decided, for you have not looked at it yet. Open it once" in answer["refused"][0]["sentence"]
    )
    assert standing(db) == [Decision.OVERRIDE, Decision.OVERRIDE, None]
    again = ask(reviewer, "withdraw", *((each["uid"], each["version"]) for each in answer["done"])).json()
    assert len(again["done"]) == 2 and standing(db) == [None, None, None]
    with db.read() as session:
        assert len(audit.search(session, action="review.override")) == 2 and audit.verify(session).whole


def test_a_stale_row_is_refused_alone(reviewer: TestClient, db: Database) -> None:
    one, two = ward.admit(db, 1), ward.admit(db, 2)
    for uid in (one, two):
        reviewer.get(f"/studies/{uid}")
    with db.begin() as session:
        session.execute(update(Study).where(Study.study_instance_uid == one).values(version=7))
    answer = ask(reviewer, "confirm", (one, 1), (two, 1)).json()
    assert [each["uid"] for each in answer["done"]] == [two]
    assert answer["refused"][0]["sentence"].startswith("DOE, Jane: The study was changed")
    assert standing(db) == [None, Decision.CONFIRM]


def test_a_reason_there_is_none_of_and_a_study_of_another_site(
    sign_in: Callable[..., TestClient], db: Database
) -> None:
    uid = ward.admit(db, 1)
    here, elsewhere = sign_in(Role.REVIEWER), sign_in(Role.REVIEWER, "south", "South")
    here.get(f"/studies/{uid}")
    assert "no such reason" in ask(here, "override:weather", (uid, 1)).json()["refused"][0]["sentence"]
    refused = ask(elsewhere, "confirm", (uid, 1)).json()
    assert refused["done"] == [] and "DOE" not in refused["refused"][0]["sentence"]
    assert ask(here, "delete", (uid, 1)).status_code == 422
    assert standing(db) == [None]


def test_columns_are_left_out_for_the_person_who_asked(reviewer: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    reviewer.post("/preferences/columns", data={"shown": ["exam", "missing"], "query": "tab=all"})
    assert 'class="studies without-thumb without-station without-person without-images without-age"' in (
        reviewer.get("/worklist?tab=all").text
    )
    reviewer.post(
        "/preferences/columns", data={"shown": ["thumb", "exam", "missing", "station", "person", "images", "age"]}
    )
    assert 'class="studies"' in reviewer.get("/worklist?tab=all").text
