"""One's own rates: of the name that an administrator gave the account, and of nobody else's."""

from collections.abc import Callable

from fastapi.testclient import TestClient

from service.db import audit
from service.db.session import Database
from service.db.tables import Role, Verdict
from tests.review import ward

SignIn = Callable[..., TestClient]


def test_an_administrator_opens_ones_own_rates_and_nobody_elses(db: Database, sign_in: SignIn) -> None:
    for number in range(1, 21):
        ward.admit(db, number, operator="LOVELACE^Ada")
    ward.admit(db, 21, Verdict.COMPLIANT, operator="LOVELACE^Ada")
    ward.admit(db, 22, operator="HOPPER^Grace", station="US-99", requirement="carotid-angle")
    ada, admin = sign_in(Role.SONOGRAPHER, "ada"), sign_in(Role.ADMIN)
    ada.post("/preferences", data={"operator": "HOPPER^Grace"})
    assert ada.get("/reports/mine").status_code == 404, "one's own preference opens nothing"
    assert "My rates" not in ada.get("/worklist").text
    assert ada.post("/users/ada/operator", data={"operator": "HOPPER^Grace"}).status_code == 403
    assert "LOVELACE^Ada" in admin.get("/users/ada").text
    assert admin.post("/users/ada/operator", data={"operator": " LOVELACE^Ada "}).status_code == 303
    page = ada.get("/reports/mine").text
    assert "1 of 21" in page and "4.8 %" in page and "LOVELACE, Ada" in page
    assert "HOPPER" not in page and "arotid" not in page
    assert 'href="/reports/mine"' in ada.get("/worklist").text
    assert ada.get("/reports").status_code == 403
    with db.read() as session:
        assert audit.search(session, action="user.operator")[0].detail == {"operator": "LOVELACE^Ada"}
    admin.post("/users/ada/operator", data={"operator": ""})
    assert ada.get("/reports/mine").status_code == 404


def test_few_studies_make_no_rate_and_a_site_narrows(db: Database, sign_in: SignIn) -> None:
    ward.admit(db, 1, operator="A^B")
    ward.admit(db, 2, operator="A^B", institution="South")
    sam, admin = sign_in(Role.SONOGRAPHER, "sam", "North"), sign_in(Role.ADMIN)
    admin.post("/users/sam/operator", data={"operator": "A^B"})
    page = sam.get("/reports/mine").text
    assert "0 of 1" in page and "fewer than 20 studies: no rate" in page
    assert "No assessed studies of yours" in sam.get("/reports/mine?from=2020-01-01&to=2020-01-31").text
    assert sam.get("/reports/mine?from=never&to=9999-12-31").status_code == 200
