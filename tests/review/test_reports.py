"""From a number to the studies behind it, over the API."""

from fastapi.testclient import TestClient

from service.db.session import Database
from service.db.tables import Verdict
from tests.review import ward


def test_every_row_leads_to_its_studies(db: Database, reviewer: TestClient) -> None:
    flagged = [ward.admit(db, number) for number in range(1, 4)]
    ward.admit(db, 4, Verdict.COMPLIANT)
    row = reviewer.get("/api/reports/compliance?group_by=operator,day").json()["rows"][0]
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


def test_questions_that_make_no_sense(reviewer: TestClient) -> None:
    for asked in ("group_by=moon&key=1", "group_by=day,station&key=1", "group_by=day&key=yesterday"):
        assert reviewer.get(f"/api/reports/compliance/studies?{asked}").status_code == 422
