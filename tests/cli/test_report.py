"""``sonomark report``."""

import json
from datetime import UTC, datetime
from pathlib import Path

from typer.testing import CliRunner

from service.cli import app
from service.db.session import Database
from service.db.tables import Study, VerdictRecord
from service.errors import ConfigurationError

run = CliRunner().invoke
RANGE = ["--from", "2026-03-01", "--to", "2026-03-31"]


def one_study(db: Database, operator: str) -> None:
    received = datetime(2026, 3, 31, 23, 59, tzinfo=UTC)
    with db.begin() as session:
        study = Study(study_instance_uid="1.2", operator=operator, first_received_at=received)
        session.add(study)
        session.flush()
        session.add(
            VerdictRecord(study_id=study.id, verdict="compliant", rulebook="r", code_version="1", created_at=received)
        )


def test_printed(db: Database) -> None:
    one_study(db, "Meyer")
    found = run(app, ["report", "--by", "operator", *RANGE])
    assert found.exit_code == 0
    assert "Meyer" in found.output and "100.0%" in found.output
    assert "all studies" in found.output
    by_requirement = run(app, ["report", *RANGE]).output
    assert "all judgements" in by_requirement and "all studies" in by_requirement
    assert "…" not in found.output, "a pipe is no terminal of eighty columns: nothing is shortened"


def test_written(db: Database, tmp_path: Path) -> None:
    one_study(db, "=1+1")
    for kind in ("json", "csv", "xlsx", "pdf"):
        file = tmp_path / f"report.{kind}"
        assert run(app, ["report", "--by", "operator,month", "--out", str(file), *RANGE]).exit_code == 0
        assert file.stat().st_size > 100
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["rows"][0]["group"] == {"operator": "=1+1", "month": "2026-03"}
    assert b"'=1+1" in (tmp_path / "report.csv").read_bytes()


def test_as_of_a_time_before_it_came(db: Database, tmp_path: Path) -> None:
    one_study(db, "Meyer")
    file = tmp_path / "report.json"
    assert run(app, ["report", "--as-of", "2026-03-30T12:00", "--out", str(file), *RANGE]).exit_code == 0
    assert json.loads(file.read_text())["rows"] == []


def test_questions_it_cannot_answer(db: Database, tmp_path: Path) -> None:
    for wrong in (["--from", "yesterday"], ["--as-of", "noon"], ["--by", "shoes"], ["--out", str(tmp_path / "r.doc")]):
        assert isinstance(run(app, ["report", *wrong]).exception, ConfigurationError)
