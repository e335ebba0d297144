"""What only dates a study that is being received waits a moment, and nothing else does."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db import dates
from service.db.dates import Dates
from service.db.instances import register_all
from service.db.session import Database
from service.db.tables import Study, now
from tests.db.test_instances import SETTLE, arrival


@pytest.fixture
def waiting(any_db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dates]:
    """Dates that are written when they are told to stop, and not before."""
    monkeypatch.setattr(dates, "EVERY_S", 60.0)
    monkeypatch.setattr(dates, "FRESH_S", 60.0)
    made = Dates(any_db)
    made.start()
    yield made
    made.stop()


def receive(db: Database, waiting: Dates, number: int, patience: timedelta = SETTLE) -> None:
    with db.cursor() as cursor:
        register_all(cursor, [arrival(f"{number:064x}", f"1.2.{number}")], lambda _: patience, dates=waiting)
    waiting.committed(well=True)


def study(db: Database) -> Study:
    with db.read() as session:
        return session.scalars(select(Study)).one()


def test_the_dates_of_a_study_under_way_are_written_in_the_end(any_db: Database, waiting: Dates) -> None:
    for number in range(1, 3):
        receive(any_db, waiting, number)
    before = study(any_db)
    began = now()
    for number in range(3, 8):
        receive(any_db, waiting, number)
    assert study(any_db).version == before.version
    waiting.stop()
    after = study(any_db)
    assert after.version > before.version
    assert after.last_received_at >= began
    assert after.settles_at - after.last_received_at == SETTLE
    assert after.changed_at > before.changed_at


def test_a_study_that_has_settled_is_opened_at_once(any_db: Database, waiting: Dates) -> None:
    for number in range(1, 4):
        receive(any_db, waiting, number)
    with any_db.begin() as session:
        session.execute(update(Study).values(settled=True))
    receive(any_db, waiting, 4)
    assert not study(any_db).settled


def test_a_study_that_is_judged_soon_is_dated_at_once(any_db: Database, waiting: Dates) -> None:
    for number in range(1, 5):
        receive(any_db, waiting, number, timedelta(seconds=1))
        assert study(any_db).version == number


def test_what_was_rolled_back_is_not_taken_for_written(any_db: Database, waiting: Dates) -> None:
    receive(any_db, waiting, 1)
    with pytest.raises(RuntimeError), any_db.cursor() as cursor:
        register_all(cursor, [arrival("b" * 64, "1.2.2")], lambda _: SETTLE, dates=waiting)
        raise RuntimeError
    waiting.committed(well=False)
    receive(any_db, waiting, 3)
    assert study(any_db).version == 2


def test_what_a_database_away_did_not_take_is_written_later(
    any_db: Database, waiting: Dates, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 4):
        receive(any_db, waiting, number)
    before = study(any_db).version
    with monkeypatch.context() as away:
        away.setattr(any_db, "begin_lightly", any_db.begin)
        away.setattr(any_db, "in_doubt", True)  # `begin` refuses
        waiting.write()
    assert study(any_db).version == before
    waiting.write()
    assert study(any_db).version == before + 1


def test_what_nobody_foresaw_ends_nothing_and_is_written_later(
    any_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dates, "EVERY_S", 0.05)
    monkeypatch.setattr(dates, "FRESH_S", 60.0)
    waiting = Dates(any_db)
    waiting.start()
    write, wrong = waiting._date, threading.Event()

    def fails_once(*owed: Any) -> None:
        if not wrong.is_set():
            wrong.set()
            raise ValueError("nobody foresaw this")
        write(*owed)

    monkeypatch.setattr(waiting, "_date", fails_once)
    for number in range(1, 4):
        receive(any_db, waiting, number)
    before = study(any_db).version
    assert wrong.wait(5)
    until = time.monotonic() + 5
    while study(any_db).version == before and time.monotonic() < until:
        time.sleep(0.02)
    assert study(any_db).version == before + 1
    receive(any_db, waiting, 4)
    assert study(any_db).version == before + 1, "it may still wait"
    waiting.stop()
