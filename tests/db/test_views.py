"""The views for reporting tools, on both databases: they agree with the reports and hold nothing of the patient."""

from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text

from service.compliance.outcome import Outcome
from service.db import double_reads, reviews, schema, users, verdicts, views
from service.db.session import Database
from service.db.tables import Decision, DoubleRead, Finding, Reading, Review, Role, Study, Verdict, VerdictRecord, now
from service.report.compliance import report

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
REASONS = {Decision.CONFIRM: "", Decision.OVERRIDE: "not_required", Decision.RETAKE: "image_quality"}
OF_PATIENTS = ("patient_name", "patient_id", "patient_birth_date", "accession_number", "note")


@pytest.fixture
def migrated(empty: Database) -> Database:
    schema.migrate()
    return empty


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


@pytest.mark.parametrize("again", ["by a late image", "by other rules"])
def test_they_agree_with_the_report_when_verdicts_change(migrated: Database, again: str) -> None:
    by = verdicts.Versions("n@1", "t", "r", "1")
    with migrated.begin() as session:
        user = users.create_user(session, "anna", Role.REVIEWER)
        for number, (was, then, decision) in enumerate(product(Verdict, Verdict, REASONS)):
            study = Study(study_instance_uid=f"1.{number}", station=f"{was}>{then}", first_received_at=START)
            session.add(study)
            session.flush()
            verdicts.record(session, study.id, None, Outcome(was, ()), by)
            verdicts.settle(session, study, was, changed=True)
            reviews.decide(session, study, user, decision, REASONS[decision], "", study.version)
            session.refresh(study)
            changed = verdicts.record(session, study.id, None, Outcome(then, ()), by)
            if again == "by a late image":
                verdicts.settle(session, study, then, changed=changed)
            elif changed:
                verdicts.settle_all(session, {study.id: then})
    with migrated.read() as session:
        wanted = report(session, ["station"], START, END, now()).rows
        query = "SELECT station, SUM(numerator), SUM(denominator), COUNT(decision) FROM bi_studies GROUP BY station"
        found = {row[0]: tuple(row[1:]) for row in session.execute(text(query))}
        assert {key: row[:2] for key, row in found.items()} == {
            row.key[0]: (row.numerator, row.denominator) for row in wanted
        }
        assert {key: row[2] for key, row in found.items()} == {
            f"{was}>{then}": 3 * (was is then) for was, then in product(Verdict, Verdict)
        }


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


def test_what_the_first_reader_said_is_told_after_the_second(migrated: Database) -> None:
    fill(migrated)
    with migrated.begin() as session:
        study = session.scalars(select(Study).join(DoubleRead, DoubleRead.study_id == Study.id)).first()
        assert study is not None
        for name, said in (("ophelia", Reading.INCOMPLETE), ("yorick", Reading.COMPLETE)):
            reader = users.create_user(session, name, Role.REVIEWER)
            double_reads.answer(session, study, reader, said)
            found = text("SELECT first_answer, verdict FROM bi_double_reads WHERE study_instance_uid = :uid")
            told = session.execute(found, {"uid": study.study_instance_uid}).one()
            assert (told[0] is None and told[1] is None) is (name == "ophelia")
