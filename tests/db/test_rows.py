"""Rows by the dozen, on SQLite and on a real PostgreSQL."""

from typing import cast

from sqlalchemy import Table, event, insert, select

from service.compliance.outcome import FindingState, Severity, Verdict
from service.db.rows import insert_all
from service.db.session import Database
from service.db.tables import Finding, Study, VerdictRecord, now

VERDICTS, FINDINGS = cast(Table, VerdictRecord.__table__), cast(Table, Finding.__table__)
SENTENCE = "A body marker is missing: 'größer' \\ \"%s\" :name {0}\n— 右"


def verdicts_of(db: Database, count: int) -> list[int]:
    """Superseded verdicts on a study of their own, in one go."""
    with db.begin() as session:
        study = session.scalar(insert(Study).values(study_instance_uid=f"1.{count}").returning(Study.id))
        row = {
            "study_id": study,
            "instance_id": None,
            "verdict": Verdict.COMPLIANT,
            "rulebook": "r",
            "code_version": "1",
        }
        rows = [{**row, "created_at": now(), "superseded_at": now(), "network": f"n{n}"} for n in range(count)]
        kept = insert_all(session, VERDICTS, rows, VERDICTS.c.id, VERDICTS.c.network)
    return [row.id for row in sorted(kept, key=lambda row: int(row.network[1:]))]


def test_values_come_back_as_they_were_given(any_db: Database) -> None:
    moment = now()
    (verdict_id,) = verdicts_of(any_db, 1)
    finding = {
        "verdict_id": verdict_id,
        "requirement": "marker",
        "state": FindingState.MISSING,
        "severity": Severity.MAJOR,
        "sentence": SENTENCE,
        "evidence": {"frames": [{"score": 0.1 + 0.2, "frame": None}], "ü": []},
    }
    with any_db.begin() as session:
        insert_all(session, FINDINGS, [finding])
    with any_db.read() as session:
        (kept,) = session.scalars(select(Finding))
        assert {name: getattr(kept, name) for name in finding} == finding
        judged = session.get_one(VerdictRecord, verdict_id)
        assert judged.instance_id is None and judged.verdict is Verdict.COMPLIANT
        assert abs((judged.created_at - moment).total_seconds()) < 60
        assert judged.thresholds == ""  # what is not given is the column's default


def test_ids_rise_in_the_order_given(any_db: Database) -> None:
    ids = verdicts_of(any_db, 300)
    assert len(ids) == 300 and ids == sorted(ids)
    with any_db.begin() as session:
        assert insert_all(session, FINDINGS, []) == []


def test_postgresql_gets_one_text_for_any_number(any_db: Database) -> None:
    seen: set[str] = set()

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO verdicts"):
            seen.add(statement)

    event.listen(any_db.engine, "before_cursor_execute", note)
    for count in (1, 2, 7):
        verdicts_of(any_db, count)
    assert len(seen) == (1 if any_db.engine.dialect.name == "postgresql" else 3)
