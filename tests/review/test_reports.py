"""From a number to the studies behind it, over the API; and what an account of one site gets of it."""

import csv
import html
import io
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from service.db import double_reads, studies
from service.db.session import Database
from service.db.tables import Role, Verdict
from service.review.report_schemas import ComplianceReport
from tests.review import ward


def test_every_row_leads_to_its_studies(db: Database, reviewer: TestClient) -> None:
    flagged = [ward.admit(db, number) for number in range(1, 4)]
    ward.admit(db, 4, Verdict.COMPLIANT)
    told = reviewer.get("/api/reports/compliance?group_by=operator,day").json()
    row = told["rows"][0]
    ComplianceReport.model_validate(told)  # as the description says
    assert (row["non_compliant"], row["denominator"]) == (3, 4)
    behind = reviewer.get(row["studies"] + "&counted=non_compliant&limit=2").json()
    assert behind["studies"][0]["operator"] == "SONO^Grapher"
    rest = reviewer.get(behind["next"]).json()
    assert rest["next"] is None
    found = [each["study_instance_uid"] for page in (behind, rest) for each in page["studies"]]
    assert sorted(found) == sorted(flagged)
    assert "DOE" not in str(behind)


def test_every_point_of_a_chart_leads_to_its_studies(db: Database, reviewer: TestClient) -> None:
    ward.admit(db, 1)
    told = reviewer.get("/api/reports/chart?group_by=week").json()
    assert told["kind"] == "p" and told["rate"] == [0.0]
    assert len(reviewer.get(told["studies"][0]).json()["studies"]) == 1


FAR = ["0001-01-01", "0001-01-05", "9999-12-31", "0001-01-01T00:00:00", "0001-01-01T00:00:00%2B14:00"]
FAR += ["9999-12-31T23:59:59-12:00"]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/New_York"])
@pytest.mark.parametrize("name", ["from", "to", "as_of"])
@pytest.mark.parametrize("moment", FAR)
def test_the_ends_of_the_calendar(
    reviewer: TestClient, hospital_in: Callable[[str], None], zone: str, name: str, moment: str
) -> None:
    hospital_in(zone)
    for path in ("/reports?", "/reports/studies?group_by=station&key=US-03&", "/api/reports/compliance?group_by=week&"):
        assert reviewer.get(f"{path}{name}={moment}").status_code in (200, 422), path


def test_numbers_and_months_beyond_every_end(reviewer: TestClient) -> None:
    for path in ("/reports/studies", "/api/reports/compliance/studies"):
        assert reviewer.get(f"{path}?group_by=station&key=US-03&before={2**64}").status_code == 422
        assert reviewer.get(f"{path}?group_by=month&key=9999-12").status_code in (200, 422)
        assert reviewer.get(f"{path}?group_by=week&key=9999-12-31").status_code in (200, 422)


def test_questions_that_make_no_sense(reviewer: TestClient) -> None:
    for asked in ("group_by=moon&key=1", "group_by=day,station&key=1", "group_by=day&key=yesterday"):
        assert reviewer.get(f"/api/reports/compliance/studies?{asked}").status_code == 422


@pytest.fixture
def two_sites(db: Database) -> dict[str, list[str]]:
    """Two studies of North, one of South; one of each was answered twice, and not alike."""
    found = {
        "North": [ward.admit(db, 1), ward.admit(db, 2, Verdict.COMPLIANT)],
        "South": [ward.admit(db, 3, institution="South", station="US-77", operator="SOUTHERN^Sue")],
    }
    with db.begin() as session:
        for uids in found.values():
            double_reads.draw(session, studies.brief(session, uids[0]), 1.0)
    return found


SignIn = Callable[..., TestClient]
FOREIGN = ("South", "US-77", "SOUTHERN", "Southern")


@pytest.mark.parametrize("group_by", ["operator", "station", "institution", "exam", "requirement", "day"])
def test_an_account_of_one_site_gets_that_sites_numbers(
    group_by: str, two_sites: dict[str, list[str]], sign_in: SignIn, reviewer: TestClient
) -> None:
    north, south = sign_in(Role.REVIEWER, "north", "North"), sign_in(Role.REVIEWER, "south", "South")
    totals = {}
    for name, browser in (("all", reviewer), ("north", north), ("south", south)):
        found = browser.get(f"/api/reports/compliance?group_by={group_by}").json()
        totals[name] = (found["total"]["denominator"], found["total"]["non_compliant"], found["site"])
        behind = [study for row in found["rows"] for study in browser.get(row["studies"]).json()["studies"]]
        assert len(behind) == found["total"]["denominator"]
        chart = browser.get(f"/api/reports/chart?group_by={group_by}").json()
        assert sum(chart["n"]) == found["total"]["denominator"]
        assert sum(len(browser.get(link).json()["studies"]) for link in chart["studies"]) == len(behind)
    assert totals["north"][1:] == (1, "North") and totals["south"][1:] == (1, "South")
    assert totals["all"][0] == totals["north"][0] + totals["south"][0] and totals["north"][0] > totals["south"][0] > 0


def test_every_page_and_file_speaks_of_that_site_alone(
    two_sites: dict[str, list[str]], sign_in: SignIn, reviewer: TestClient
) -> None:
    north = sign_in(Role.REVIEWER, "north", "North")
    page = north.get("/reports?group_by=station").text
    assert 'href="/reports"' in page and "US-03" in page and not any(word in page for word in FOREIGN)
    for link in re.findall(r'href="(/reports/studies[^"]*)"', page):
        shown = north.get(html.unescape(link)).text
        assert two_sites["South"][0] not in shown and "/studies/" in shown
    mine, whole = (browser.get("/api/reports/compliance?group_by=operator&format=csv") for browser in (north, reviewer))
    assert len(list(csv.DictReader(io.StringIO(mine.text.lstrip("\ufeff"))))) == 1 and "SOUTHERN" in whole.text
    sheets = zipfile.ZipFile(io.BytesIO(north.get("/api/reports/compliance?group_by=station&format=xlsx").content))
    text = "".join(sheets.read(name).decode() for name in sheets.namelist())
    assert "US-03" in text and "North" in text and not any(word in text for word in FOREIGN)
    as_paper = "/api/reports/compliance?group_by=station&format=pdf"
    paper, of_all = north.get(as_paper).content, reviewer.get(as_paper).content
    assert paper.startswith(b"%PDF") and len(paper) < len(of_all)
    foreign = "/api/reports/compliance/studies?group_by=station&key=US-77"
    assert north.get(foreign).json()["studies"] == [] and len(reviewer.get(foreign).json()["studies"]) == 1
    assert "Nearest data" not in north.get("/reports?group_by=institution").text


def test_agreement_is_that_of_the_site(two_sites: dict[str, list[str]], sign_in: SignIn, reviewer: TestClient) -> None:
    for uids in two_sites.values():
        for name, said in (("anna", "complete"), ("ben", "incomplete")):
            sign_in(Role.REVIEWER, name).post(f"/api/double-reads/{uids[0]}", json={"answer": said})
    browsers = {"North": sign_in(Role.REVIEWER, "north", "North"), "": reviewer}
    found = {site: browser.get("/api/reports/agreement").json() for site, browser in browsers.items()}
    assert (found["North"]["disagreed"], found[""]["disagreed"]) == (1, 2)
    assert (found["North"]["waiting"], found[""]["waiting"]) == (1, 2)


def test_a_day_is_a_whole_day_and_the_last_one_is_included(db: Database, reviewer: TestClient) -> None:
    ward.admit(db, 1, received=datetime(2026, 3, 31, 23, 59, tzinfo=UTC))

    def counted(**asked: str) -> int:
        told = reviewer.get("/api/reports/compliance", params={"group_by": "station", **asked}).json()
        return int(told["total"]["denominator"])

    assert counted(**{"from": "2026-03-31", "to": "2026-03-31"}) == 1
    assert counted(**{"from": "2026-03-01", "to": "2026-03-30"}) == 0
    assert counted(**{"from": "2026-03-31T00:00:00Z", "to": "2026-03-31T00:00:00Z"}) == 0
    assert counted(**{"from": "2026-03-31T00:00:00Z", "to": "2026-04-01T00:00:00Z"}) == 1
    assert counted(**{"from": "2026-03-31T00:00:00Z", "to": "2026-03-31T23:00:00Z"}) == 0
    assert reviewer.get("/api/reports/compliance?from=2026-02-31").status_code == 422


def test_pages_files_and_lists_count_by_the_hospitals_days(
    db: Database, reviewer: TestClient, hospital_in: Callable[[str], None]
) -> None:
    hospital_in("Europe/Berlin")
    ward.admit(db, 1, received=datetime(2026, 3, 31, 22, 30, tzinfo=UTC))  # half past midnight in Berlin
    for day, there in (("2026-03-31", False), ("2026-04-01", True)):
        span = f"from={day}&to={day}"
        page = reviewer.get(f"/reports?group_by=day&{span}").text
        assert f'name="from" value="{day}"' in page and f'name="to" value="{day}"' in page
        assert ("US-03" in reviewer.get(f"/worklist?tab=all&{span}").text.partition('id="list"')[2]) is there
        assert bool(reviewer.get(f"/api/studies?{span}").json()["studies"]) is there, "the last day is included"
        told = reviewer.get(f"/api/reports/compliance?group_by=day&{span}").json()
        assert told["time_zone"] == "Europe/Berlin"
        assert [row["group"]["day"] for row in told["rows"]] == ([day] if there else [])
    assert "Nearest data: <a" in reviewer.get("/reports?from=2026-03-31&to=2026-03-31").text
    assert ">2026-04-01</a>" in reviewer.get("/reports?from=2026-03-31&to=2026-03-31").text
    behind = reviewer.get("/reports/studies?group_by=day&key=2026-04-01&from=2026-04-01&to=2026-04-01").text
    assert "from 2026-04-01 to 2026-04-01" in behind and ">2026-04-01 00:30</time>" in behind
    assert "from=2026-04-01&amp;to=2026-04-01" in behind, "back to the report as it was"


def test_back_from_the_studies_leads_to_the_report_as_it_was(db: Database, reviewer: TestClient) -> None:
    ward.admit(db, 1, received=datetime(2026, 3, 31, tzinfo=UTC))
    asked = {"group_by": "station", "key": "US-03", "from": "2026-03-01", "to": "2026-03-31"}
    assert "as_of=2026-04-02" in reviewer.get("/reports/studies", params={**asked, "as_of": "2026-04-02T12:00"}).text
    assert "as_of" not in reviewer.get("/reports/studies", params=asked).text
    page = reviewer.get("/reports", params={**asked, "as_of": "2026-04-02"}).text
    studies = html.unescape(next(link for link in re.findall(r'href="(/reports/studies[^"]+)', page)))
    assert 'as_of=2026-04-02"' in reviewer.get(studies).text, "not the day after, whose beginning that end is"
