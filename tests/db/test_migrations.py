"""The schema's way up, down and up again, on an empty and on a populated database, on SQLite and PostgreSQL."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.db import audit, double_reads, peers, reviews, schema
from service.db.session import Database
from service.db.tables import (
    Analysis,
    Base,
    Cause,
    Decision,
    DoubleRead,
    DoubleReadState,
    Finding,
    FindingState,
    Instance,
    SchemaWindow,
    Series,
    Severity,
    Study,
    User,
    Verdict,
    VerdictRecord,
    now,
)
from service.errors import SchemaError

ON_POSTGRESQL = {f"ix_studies_{name}" for name in ("patient_names", "patient_id_begins", "accession_number_begins")}


def _differences(db: Database) -> list[object]:
    def belongs(part: object, name: str | None, kind: str, *_: object) -> bool:
        return db.engine.dialect.name == "postgresql" or name not in ON_POSTGRESQL

    with db.engine.connect() as connection:
        opts = {"compare_type": True, "render_as_batch": True, "include_object": belongs}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, Base.metadata))


def _populate(db: Database) -> None:
    with db.begin() as session:
        study = Study(study_instance_uid="1.2.3", patient_name="Test^Person", station="US01")
        series = Series(study=study, series_instance_uid="1.2.3.1")
        session.add_all([study, series])
        session.flush()
        instance = Instance(
            study=study,
            series_id=series.id,
            sop_instance_uid="1.2.3.1.1",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256="0" * 64,
            size=1,
            archive_key="instances/00/00/0.dcm",
            header={"regions": [1, 2]},
        )
        session.add(Analysis(instance=instance, milliseconds={"restore": 1.5}))


def _rows(db: Database) -> dict[str, list[list[tuple[str, str]]]]:
    """Every row of every table but Alembic's own, in an order of its own: a table's is nobody's promise."""
    found = {}
    with db.engine.connect() as connection:
        for table in inspect(db.engine).get_table_names():
            if table != "alembic_version":
                rows = connection.execute(text(f'SELECT * FROM "{table}"')).mappings()
                found[table] = sorted(sorted((name, str(value)) for name, value in row.items()) for row in rows)
    return found


def _revisions() -> list[str]:
    """From the first to the newest."""
    script = ScriptDirectory.from_config(schema._config())
    return [revision.revision for revision in script.walk_revisions()][::-1]


def test_from_nothing_to_the_newest_is_what_the_tables_say(empty: Database) -> None:
    schema.migrate()
    assert schema.current(empty) == schema.newest()
    assert _differences(empty) == []
    schema.require_usable(empty)


def test_there_is_one_line_of_revisions(empty: Database) -> None:
    assert len(ScriptDirectory.from_config(schema._config()).get_heads()) == 1


def test_all_the_way_down_leaves_nothing(empty: Database) -> None:
    schema.migrate()
    schema.downgrade("base")
    assert set(inspect(empty.engine).get_table_names()) <= {"alembic_version"}
    with pytest.raises(SchemaError):
        schema.require_usable(empty)


def test_every_step_down_and_up_again_keeps_a_populated_database(empty: Database) -> None:
    schema.migrate()
    _populate(empty)
    before = _rows(empty)
    for revision in _revisions()[:-1][::-1]:
        schema.downgrade(revision)
        schema.migrate()
        assert _rows(empty) == before
        assert _differences(empty) == []
    assert before["studies"]


def test_decisions_that_were_left_behind_by_their_verdicts_end(empty: Database) -> None:
    schema.migrate("0020")
    by = {"rulebook": "r@1", "code_version": "1"}

    def judge(session: Session, study: Study, verdict: Verdict, *lacking: str) -> None:
        of_study = update(VerdictRecord).where(VerdictRecord.study_id == study.id)
        session.execute(of_study.where(VerdictRecord.superseded_at.is_(None)).values(superseded_at=now()))
        missing = {"state": FindingState.MISSING, "severity": Severity.MAJOR, "sentence": "s"}
        findings = [Finding(requirement=name, **missing) for name in lacking]
        session.add(VerdictRecord(study_id=study.id, verdict=verdict, findings=findings, **by))
        study.verdict = verdict
        session.flush()

    bad, good = Verdict.NON_COMPLIANT, Verdict.COMPLIANT
    then = {
        "flipped": (good, ()),
        "lacks more": (bad, ("calipers", "marker")),
        "lacks less": (bad, ()),
        "the same": (bad, ("calipers",)),
    }
    with empty.begin() as session:
        ann = User(name="ann")
        session.add(ann)
        for name, (verdict, lacking) in then.items():
            study = Study(study_instance_uid=name)
            session.add(study)
            session.flush()
            judge(session, study, bad, "calipers")
            reviews.decide(session, study, ann, Decision.OVERRIDE, "not_required", "", study.version)
            reads = {"cause": Cause.OVERRIDE, "first_user_id": ann.id}
            differed = {"state": DoubleReadState.DISAGREED} if name == "lacks more" else {}
            session.add(DoubleRead(study_id=study.id, **reads, **differed))
            session.refresh(study)
            judge(session, study, verdict, *lacking)
    schema.migrate()
    with empty.read() as session:
        found = {study.study_instance_uid: study for study in session.scalars(select(Study))}
        assert {name for name, study in found.items() if study.decision is None} == {"flipped", "lacks more"}
        for study in found.values():
            stands = bool(reviews.standing(session, study))
            read = double_reads.of(session, study)
            waits = read is not None and read.state is not DoubleReadState.DONE
            assert (study.decision is not None) is stands is waits, "as the service itself has it"
            assert read is not None or study.study_instance_uid == "flipped", "two answers are kept"


def test_peers_entered_before_they_had_options_have_the_usual(empty: Database) -> None:
    schema.migrate("0019")
    entered = "INSERT INTO peers (ae_title, address, description, created_by, created_at, echo) VALUES"
    with empty.engine.begin() as connection:
        connection.execute(text(f"{entered} ('US01', '10.1.4.13', '', 'admin', '2026-11-27 08:00:00', '')"))
    schema.migrate()
    with empty.engine.begin() as connection:  # and as a dashboard that is not upgraded yet enters them
        connection.execute(text(f"{entered} ('US02', '', '', 'admin', '2026-11-27 08:00:00', '')"))
    with empty.read() as session:
        found = peers.let_in(session)
        assert [peer.ae_title for peer in found] == ["US01", "US02"]
        assert [peers.unusual(peer) for peer in found] == [{}, {}]
    with empty.begin() as session:
        peers.change(session, peers.let_in(session)[0], {"tls": "required"})
    schema.downgrade("0019")
    schema.migrate()
    with empty.read() as session:
        assert [(peer.ae_title, peers.unusual(peer)) for peer in peers.let_in(session)] == [("US01", {}), ("US02", {})]


def test_migrating_twice_changes_nothing(empty: Database) -> None:
    schema.migrate()
    _populate(empty)
    before = _rows(empty)
    schema.migrate()
    assert _rows(empty) == before


def test_two_that_migrate_at_once_do_it_once(empty: Database) -> None:
    """As when two machines are upgraded, or two roles that migrate are started, in the same moment."""
    program = "from service.db import schema; input(); schema.migrate()"
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, stdin=-1, stderr=-1, text=True) for _ in range(2)]
    time.sleep(3.0)  # until both have loaded what they need
    for one in both:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=120)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert _differences(empty) == []
    schema.require_usable(empty)


@pytest.mark.parametrize("statement", [1, 7, 15])
def test_a_migration_killed_in_the_middle_is_run_again(empty: Database, statement: int) -> None:
    """SIGKILL at the Nth table: the next run finds either the state before or can go on."""
    program = f"""
import os, signal
from sqlalchemy import event
from service.db import schema
from service.db.session import database
seen = 0
def kill(connection, cursor, statement, *_):
    global seen
    seen += statement.lstrip().upper().startswith("CREATE TABLE")
    if seen >= {statement}:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(database().engine, "after_cursor_execute", kill)
schema.migrate()
"""
    killed = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    schema.migrate()
    assert _differences(empty) == []


def test_every_revision_since_the_last_contraction_may_run(empty: Database) -> None:
    schema.migrate()
    with empty.engine.connect() as connection:
        written = set(connection.scalars(select(SchemaWindow.revision)))
    assert written == set(schema.window(schema.newest()))
    assert schema.newest() in written


def test_a_migration_gives_way_to_roles_at_work(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    if empty.engine.dialect.name == "sqlite":
        pytest.skip("one writer at a time: a migration waits like any other")
    schema.migrate(_revisions()[0])
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_S", 1)
    held, done = threading.Event(), threading.Event()

    def work() -> None:
        """Holds a study for longer than the migration waits, then asks for what comes after it."""
        with empty.engine.begin() as connection:
            connection.execute(text("LOCK TABLE studies IN ROW EXCLUSIVE MODE"))
            held.set()
            done.wait(3.0)
            connection.execute(text("LOCK TABLE users IN ROW EXCLUSIVE MODE"))

    worker = threading.Thread(target=work)
    worker.start()
    held.wait(10)
    schema.migrate()
    done.set()
    worker.join(10)
    schema.require_usable(empty)
    assert _differences(empty) == []


def test_an_older_database_is_refused_with_its_cure(empty: Database) -> None:
    schema.migrate(_revisions()[0])
    with pytest.raises(SchemaError, match="too old") as refused:
        schema.require_usable(empty)
    assert "sonomark migrate" in refused.value.cure


def _next_release(folder: Path, db: Database, body: str) -> None:
    """Migrate by a release to come, whose migrations this code has never seen: ours and one more."""
    ours = Path(schema._config().get_main_option("script_location") or "")
    shutil.copytree(ours, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    more = f'from alembic import op\nimport sqlalchemy as sa\nrevision = "next"\ndown_revision = "{schema.newest()}"\n'
    (folder / "migrations" / "versions" / "next.py").write_text(more + body)
    program = f"""
from pathlib import Path
from service.db import schema
schema.HOUSE = Path({str(folder)!r})
schema.migrate()
"""
    subprocess.run([sys.executable, "-c", program], env=os.environ, check=True, timeout=120)


EXPAND = """
def upgrade():
    with op.batch_alter_table("studies") as batch:
        batch.add_column(sa.Column("theatre", sa.String(16), server_default="", nullable=False))
"""
CONTRACT = """
contracts = True
def upgrade():
    with op.batch_alter_table("series") as batch:
        batch.drop_column("description")
"""


def test_this_version_starts_again_after_a_newer_one_has_expanded_the_schema(empty: Database, tmp_path: Path) -> None:
    schema.migrate()
    _next_release(tmp_path / "next", empty, EXPAND)
    assert schema.require_usable(empty) == "next"
    _populate(empty)  # and it can still write


def test_this_version_is_shut_out_once_a_newer_one_has_taken_something_away(empty: Database, tmp_path: Path) -> None:
    schema.migrate()
    _next_release(tmp_path / "next", empty, CONTRACT)
    with pytest.raises(SchemaError, match="newer") as refused:
        schema.require_usable(empty)
    assert "newer Sonomark" in refused.value.cure


def test_the_audit_trail_refuses_changes(empty: Database) -> None:
    schema.migrate()
    with empty.begin() as session:
        audit.record(session, "ann", "study.view", "1.2.3")
    for statement in ("UPDATE audit_events SET actor = 'bob'", "DELETE FROM audit_events"):
        with pytest.raises(DBAPIError, match="append-only"), empty.engine.begin() as connection:
            connection.execute(text(statement))
    with empty.read() as session:
        assert audit.verify(session) == audit.AuditCheck(1, audit.search(session)[0].hash, None)


def test_a_newer_database_without_a_window_is_refused(empty: Database) -> None:
    schema.migrate()
    with empty.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'ffffffffffff'"))
        connection.execute(text("DROP TABLE schema_window"))
    with pytest.raises(SchemaError, match="newer"):
        schema.require_usable(empty)


def test_the_queue_is_vacuumed_by_its_own_measure(empty: Database) -> None:
    if empty.engine.dialect.name != "postgresql":
        pytest.skip("SQLite keeps no dead rows")

    def measure() -> dict[str, str]:
        with empty.engine.connect() as connection:
            options = connection.scalar(text("SELECT reloptions FROM pg_class WHERE relname = 'analyses'")) or []
        return dict(option.split("=") for option in options)

    Base.metadata.create_all(empty.engine)
    created = measure()
    assert created["autovacuum_vacuum_scale_factor"] == "0"
    Base.metadata.drop_all(empty.engine)
    schema.migrate()
    assert measure() == created
    schema.downgrade("0015")
    assert measure() == {}
