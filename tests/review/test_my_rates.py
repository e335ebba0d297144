"""One's own rates: of the name that an administrator gave the account, and of nobody else's."""

import html
import json
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.db import audit
from service.db.days import today, zone
from service.db.session import Database
from service.db.tables import Role, Study, Verdict
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


@pytest.fixture
def weeks(db: Database) -> tuple[date, date]:
    """Mondays of two weeks gone by, with two studies in the first one and one in the second. A further image of each
    came a week after its first."""
    monday = today() - timedelta(days=today().weekday() + 14)
    for number, day in enumerate((monday, monday + timedelta(days=5), monday + timedelta(days=7)), 1):
        verdict = Verdict.COMPLIANT if number == 2 else Verdict.NON_COMPLIANT
        ward.admit(db, number, verdict, operator="A^B", received=_noon(day))
    ward.admit(db, 4, operator="C^D", received=_noon(monday))
    with db.begin() as session:
        for study in session.query(Study):
            study.last_received_at += timedelta(days=7)
    return monday, monday + timedelta(days=7)


def test_behind_each_number_are_the_studies_that_it_counts(sign_in: SignIn, weeks: tuple[date, date]) -> None:
    """A study counts on the day of its first image."""
    sam = _scanning(sign_in)
    page = sam.get("/reports/mine").text
    drawn = _drawn(page)
    assert drawn["names"] == [str(week) for week in weeks] and drawn["n"] == [2, 1]
    assert [_studies_of(sam, address) for address in drawn["pages"]] == [{1, 2}, {3}]
    numbers = re.findall(r'<a href="(/reports/mine/studies[^"]*counted=\w+)">(\d+)<', page)
    assert [int(number) for _, number in numbers] == [
        1,
        2,
        3,
    ]  # complete and missing; of the other requirement complete
    assert [len(_studies_of(sam, html.unescape(address))) for address, _ in numbers] == [1, 2, 3]
    everything = re.search(r'href="(/reports/mine/studies[^"]*)">My studies', page)[1]
    assert _studies_of(sam, html.unescape(everything)) == {1, 2, 3}


def test_a_week_that_the_time_cuts_leads_to_what_it_counts(sign_in: SignIn, weeks: tuple[date, date]) -> None:
    sam = _scanning(sign_in)
    asked = f"/reports/mine?from={weeks[0] + timedelta(days=2)}&to={weeks[1]}"
    drawn = _drawn(sam.get(asked).text)
    assert [_studies_of(sam, address) for address in drawn["pages"]] == [{2}, {3}]
    assert html.unescape(re.search(r'href="([^"]*)">← Report', sam.get(drawn["pages"][0]).text)[1]) == asked


def test_nobody_elses_studies_are_behind_ones_own_numbers(
    db: Database, sign_in: SignIn, weeks: tuple[date, date]
) -> None:
    sam = _scanning(sign_in)
    assert _studies_of(sam, "/reports/mine/studies?group_by=operator&key=C^D") == set()
    assert sam.get("/reports/mine/studies?group_by=week&key=never").status_code == 422
    assert sign_in(Role.SONOGRAPHER, "nobody").get("/reports/mine/studies").status_code == 404
    with db.read() as session:
        assert audit.search(session, action="report.view", actor="sam")[0].subject == "studies"


def _noon(day: date) -> datetime:
    return datetime.combine(day, time(12), zone())


def _scanning(sign_in: SignIn) -> TestClient:
    sam = sign_in(Role.SONOGRAPHER, "sam")
    sign_in(Role.ADMIN).post("/users/sam/operator", data={"operator": "A^B"})
    return sam


def _drawn(page: str) -> dict[str, Any]:
    return json.loads(re.search(r'id="over-time-data">(.*?)</script>', page)[1])


def _studies_of(client: TestClient, address: str) -> set[int]:
    answer = client.get(address)
    assert answer.status_code == 200
    return {int(number) for number in re.findall(rf'href="/studies/{re.escape(ward.ROOT)}(\d+)"', answer.text)}
