"""What a receiver does before the first sender comes, so that no instance waits for it."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from service.archive.lanes import LANE_BYTES
from service.archive.store import ArchiveStore
from service.db.instances import Registration, register_all
from service.db.session import Database
from service.db.tables import Analysis, Base, Instance, Series, Study
from service.receive import ledger
from service.receive.intake import Intake
from tests.receive.test_interleavings import at_once


def test_a_rehearsal_runs_every_statement_and_leaves_nothing(
    any_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Registration] = []

    def registered(*arguments: Any, **named: Any) -> list[Registration]:
        made.extend(register_all(*arguments, **named))
        return made

    monkeypatch.setattr(ledger, "register_all", registered)
    intake = Intake(ArchiveStore(tmp_path / "archive"), any_db, at_once, 0)
    intake.start(LANE_BYTES)
    intake.stop(10)
    assert [one.created and one.analysis_id is not None for one in made] == [True]
    with any_db.read() as session:
        rows = [session.scalar(select(func.count()).select_from(each)) for each in (Study, Series, Instance, Analysis)]
    assert rows == [0, 0, 0, 0]


def test_a_receiver_starts_before_its_tables_are_there(any_db: Database, tmp_path: Path) -> None:
    Base.metadata.drop_all(any_db.engine)
    intake = Intake(ArchiveStore(tmp_path / "archive"), any_db, at_once, 0)
    intake.start(LANE_BYTES)
    intake.stop(10)
    assert not intake.suspension.reason()
