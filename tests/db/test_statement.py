"""The receiver's hot path writes the same rows on SQLite and on a real PostgreSQL."""

from datetime import timedelta

from sqlalchemy import select

from service.db.instances import register_all
from service.db.session import Database
from service.db.tables import Instance
from tests.db.test_instances import arrival


def _soon(calling_ae_title: str) -> timedelta:
    return timedelta(seconds=30)


def test_arrivals_are_registered_once(any_db: Database) -> None:
    batch = [arrival(), arrival("b" * 64), arrival("c" * 64, sop="1.2.4")]
    with any_db.cursor() as cursor:
        made = register_all(cursor, batch, _soon)
    with any_db.cursor() as cursor:
        again = register_all(cursor, batch, _soon)
    assert [one.created for one in made] == [True, True, True]
    assert [one.created for one in again] == [False, False, False]
    with any_db.read() as session:
        rows = list(session.scalars(select(Instance).order_by(Instance.sha256)))
        assert [(row.sop_instance_uid, row.conflict, len(row.analyses)) for row in rows] == [
            ("1.2.3", True, 1),
            ("1.2.3", True, 1),
            ("1.2.4", False, 1),
        ]
        analyses = [analysis for row in rows for analysis in row.analyses]
        assert all(analysis.bands == {} and analysis.milliseconds == {} for analysis in analyses)
        assert all(row.study.patient_id == "P" and not row.study.settled for row in rows)
