"""The receiver's hot path writes the same rows on SQLite and on a real PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from service.db.instances import register_all
from service.db.session import Database
from service.db.tables import Base, Instance
from tests.db.test_instances import arrival
from tests.faults.servers import Postgres


def _soon(calling_ae_title: str) -> timedelta:
    return timedelta(seconds=30)


@pytest.fixture(params=["sqlite", "postgresql"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    server = Postgres() if request.param == "postgresql" else None
    database = Database(server.url() if server else f"sqlite:///{tmp_path}/one.sqlite")
    Base.metadata.create_all(database.engine)
    yield database
    database.dispose()
    if server:
        server.remove()


def test_arrivals_are_registered_once(both: Database) -> None:
    batch = [arrival(), arrival("b" * 64), arrival("c" * 64, sop="1.2.4")]
    with both.cursor() as cursor:
        made = register_all(cursor, batch, _soon)
    with both.cursor() as cursor:
        again = register_all(cursor, batch, _soon)
    assert [one.created for one in made] == [True, True, True]
    assert [one.created for one in again] == [False, False, False]
    with both.read() as session:
        rows = list(session.scalars(select(Instance).order_by(Instance.sha256)))
        assert [(row.sop_instance_uid, row.conflict, len(row.analyses)) for row in rows] == [
            ("1.2.3", True, 1),
            ("1.2.3", True, 1),
            ("1.2.4", False, 1),
        ]
        assert all(row.study.patient_id == "P" and not row.study.settled for row in rows)
