"""Tables on paper: nothing is shortened in a pipe, and nothing that people wrote is taken for markup."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from typer.testing import CliRunner

from service.cli import app
from service.db import retention, studies, users
from service.db.session import Database
from service.db.tables import Role
from tests.review import ward

run = CliRunner().invoke
NAME = "an-account-with-a-name-as-long-as-they-come@radiology.hospital"
REASON = "asked for in [/letters] of the [bold]court, file 12 of the year before last"


def test_nothing_is_shortened_or_taken_for_markup(db: Database) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        users.create_user(session, NAME, Role.VIEWER)
        retention.place_hold(session, studies.brief(session, uid), REASON, NAME)
    narrow = {"COLUMNS": "80"}
    assert NAME in run(app, ["user", "list"], env=narrow).output
    listed = run(app, ["retention", "holds"], env=narrow)
    assert listed.exit_code == 0, listed.exception
    told = " ".join(listed.output.replace("│", " ").split())
    assert uid in told and "[/letters]" in told and "[bold]court" in told


def test_a_report_spans_the_days_of_the_dashboards(db: Database, tmp_path: Path) -> None:
    at = datetime.now(UTC)
    earlier_today = at - (at - at.replace(hour=0, minute=0, second=0, microsecond=0)) / 2
    for number, days in enumerate((0, 29, 30), 1):
        ward.admit(db, number, received=earlier_today - timedelta(days=days))
    file = tmp_path / "report.csv"
    assert run(app, ["report", "--by", "station", "--out", str(file)]).exit_code == 0
    assert "US-03,0,2," in file.read_text(encoding="utf-8-sig")
