"""Judging again over the API."""

from collections.abc import Callable

from fastapi.testclient import TestClient

from service.db import rulebooks
from service.db.session import Database
from service.db.tables import Role
from service.jobs import reevaluate
from tests.jobs.test_reevaluate import fill, in_force

SignIn = Callable[..., TestClient]


def test_asked_for_followed_and_listed(db: Database, sign_in: SignIn) -> None:
    with db.begin() as session:
        fill(session, 3)
        number = in_force(session)
    admin = sign_in(Role.ADMIN)
    asked = admin.post("/api/reevaluations", json={"rulebook": number, "first_day": "2020-01-01"})
    assert asked.status_code == 202 and (asked.json()["total"], asked.json()["done"]) == (3, 0)
    reevaluate.run(db, asked.json()["id"])
    found = admin.get(f"/api/reevaluations/{asked.json()['id']}").json()
    assert found["done"] == 3 and found["finished_at"]
    assert found["changes"] == {"compliant>non_compliant": {"count": 1, "studies": ["1.2.2"]}}
    assert [each["id"] for each in admin.get("/api/reevaluations").json()] == [found["id"]]


def test_cancelled_and_refused(db: Database, sign_in: SignIn) -> None:
    with db.begin() as session:
        fill(session, 1)
        number = rulebooks.versions(session)[0].id
    admin = sign_in(Role.ADMIN)
    asked = admin.post("/api/reevaluations", json={"rulebook": number}).json()
    assert admin.post(f"/api/reevaluations/{asked['id']}/cancel").json()["cancelled_at"]
    wrong = {"rulebook": number, "first_day": "2026-02-01", "last_day": "2026-01-01"}
    assert admin.post("/api/reevaluations", json=wrong).status_code == 422
    assert admin.post("/api/reevaluations", json={"rulebook": 99}).status_code == 404
