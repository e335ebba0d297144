"""One change told to many open worklists: worked out once where it is the same, and each reader's own where not."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.db import audit, double_reads, reviews, users, worklist
from service.db.session import Database
from service.db.tables import DoubleRead, Reading, Role, Study, Verdict
from service.review.changes import MOST_AT_ONCE, Change
from service.review.deps import Account
from service.review.kept import Kept
from tests.review import ward


@pytest.fixture
def person(db: Database) -> Callable[..., Account]:
    """A reader whose worklist lies open."""

    def enter(name: str, site: str = "") -> Account:
        with db.begin() as session:
            user = users.find_user(session, name) or users.create_user(session, name, Role.REVIEWER, site=site)
            users.open_session(session, user)
            return Account(user, users.sessions_of(session, user)[0], "csrf", "")

    return enter


def number(db: Database, uid: str) -> int:
    with db.read() as session:
        return session.scalars(select(Study.id).where(Study.study_instance_uid == uid)).one()


def test_fifty_worklists_cost_one_look(
    client: TestClient, db: Database, person: Callable[..., Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for name in ("rows_of", "fitting", "tab_counts"):
        genuine = getattr(worklist, name)

        def counted(*arguments: Any, name: str = name, genuine: Any = genuine) -> Any:
            asked.append(name)
            return genuine(*arguments)

        monkeypatch.setattr(worklist, name, counted)
    change = Change({number(db, ward.admit(db, 1))})
    told = {change.message(person(f"reader{place}"), {"tab": "flagged"}) for place in range(50)}
    assert len(told) == 1 and "DOE, Jane" in told.pop()
    assert sorted(asked) == ["fitting", "rows_of", "tab_counts"]


def test_each_reader_hears_of_their_own_site_queue_and_studies(
    client: TestClient, db: Database, person: Callable[..., Account]
) -> None:
    north = ward.admit(db, 1, institution="North", name="NORTH^A")
    south = ward.admit(db, 2, Verdict.COMPLIANT, institution="South", name="SOUTH^B")
    ann, bob = person("ann"), person("bob", site="South")
    with db.begin() as session:
        reviews.hold(session, session.scalars(select(Study).where(Study.study_instance_uid == north)).one(), ann.user)
        audit.record(session, "ann", "study.view", north)
    change = Change({number(db, north), number(db, south)})
    of_bob = change.message(bob, {"tab": "all"})
    all_of_ann, flagged_of_ann = (change.message(ann, {"tab": tab}) for tab in ("all", "flagged"))
    assert all_of_ann.count("You have opened it") == 1 and "You have opened it" not in of_bob
    assert "NORTH, A" in all_of_ann and "SOUTH, B" in all_of_ann
    assert "NORTH, A" not in of_bob and "SOUTH, B" in of_bob
    mine = '<hx-partial hx-target="#count-mine" hx-swap="innerHTML">{}</hx-partial>'
    assert mine.format(1) in all_of_ann and mine.format(0) in of_bob
    assert f'"fitting": [{number(db, north)}]' in flagged_of_ann and '"many": false' in flagged_of_ann


def test_whoever_owes_a_blinded_answer_hears_nothing_of_that_study(
    client: TestClient, db: Database, person: Callable[..., Account]
) -> None:
    uid = ward.admit(db, 1)
    first, second = person("first"), person("second")
    with db.begin() as session:
        study = session.scalars(select(Study).where(Study.study_instance_uid == uid)).one()
        session.add(DoubleRead(study_id=study.id))
        session.flush()
        double_reads.answer(session, study, first.user, Reading.COMPLETE)
    change = Change({number(db, uid)})
    assert "DOE, Jane" in change.message(first, {"tab": "all"})
    assert "DOE, Jane" not in change.message(second, {"tab": "all"})


def test_too_many_at_once_are_only_said_to_be_many(
    client: TestClient, db: Database, person: Callable[..., Account]
) -> None:
    assert '"many": true' in Change(range(MOST_AT_ONCE + 1)).message(person("ann"), {})


def test_an_answer_is_kept_for_a_while_and_forgotten_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, answers = [100.0], iter(range(9))
    monkeypatch.setattr("service.review.kept.monotonic", lambda: clock[0])
    kept = Kept[int](10)

    def ask() -> int:
        return kept.get("key", lambda: next(answers))

    assert (ask(), ask()) == (0, 0)
    clock[0] += 11
    assert ask() == 1
    kept.forget()
    assert ask() == 2
