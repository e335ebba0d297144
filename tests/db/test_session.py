"""What the database may refuse without being gone, and what goes on all the same."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import create_engine, text

from service.db import heartbeats
from service.db.session import Database
from service.db.tables import Base
from service.errors import DatabaseAway

NAME = "standby"


@pytest.fixture
def db(new_database: Callable[[str], str]) -> Iterator[Database]:
    found = Database(new_database(NAME))
    Base.metadata.create_all(found.engine)
    yield found
    found.dispose()


def take_writes(db: Database, yes: bool) -> None:
    """As a failover does: the connections break, and who connects anew meets a server that takes no writes."""
    writing = {"options": "-c default_transaction_read_only=off"}
    maker = create_engine(db.engine.url, isolation_level="AUTOCOMMIT", connect_args=writing)
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = :name"
    with maker.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {NAME} SET default_transaction_read_only = {'off' if yes else 'on'}"))
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"), {"name": NAME})
    maker.dispose()


def test_a_server_that_takes_no_writes_is_one_that_is_away(db: Database) -> None:
    take_writes(db, False)
    with pytest.raises(DatabaseAway), db.begin() as session:
        heartbeats.beat(session, "receive")
    with pytest.raises(DatabaseAway), db.cursor() as cursor:
        cursor.raw.execute("DELETE FROM heartbeats")
    take_writes(db, True)
    with db.begin() as session:
        heartbeats.beat(session, "receive")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_signs_of_life_come_back_after_a_failover(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "INTERVAL_S", 0.05)
    stop = heartbeats.keep_beating(db, "work")
    try:
        take_writes(db, False)
        time.sleep(0.5)
        take_writes(db, True)
        with db.begin() as session:
            session.execute(text("DELETE FROM heartbeats"))
        deadline = time.monotonic() + 5
        while not _alive(db):
            assert time.monotonic() < deadline, "the role seems dead for ever"
            time.sleep(0.05)
    finally:
        stop.set()


def _alive(db: Database) -> dict[str, int]:
    with db.read() as session:
        return heartbeats.alive(session)


def test_who_finds_no_free_connection_hears_that_the_database_is_away(db: Database) -> None:
    small = Database(db.url)
    small.engine = create_engine(db.url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with small.read() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(DatabaseAway), small.read() as another:
            another.execute(text("SELECT 1"))
    small.dispose()


def test_first_connections_to_a_new_database_wait_for_each_other(tmp_path: Path) -> None:
    """A role that met another one at the database's first moment once heard that it was locked, and so did a test."""

    def connect(path: Path, together: Barrier) -> None:
        together.wait()
        with Database(f"sqlite:///{path}").begin() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS t (x)"))

    for number in range(80):
        together = Barrier(6)
        with ThreadPoolExecutor(6) as pool:
            for made in [pool.submit(connect, tmp_path / f"{number}.db", together) for _ in range(6)]:
                made.result()
