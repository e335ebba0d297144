"""The connection to the database. Doors open transactions; rooms behind them never commit."""

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from service.db import days, patience
from service.db.statement import Cursor
from service.errors import ConfigurationError, DatabaseAway, OutcomeUnknown
from service.settings import settings

SQLITE_BUSY_MS = 20_000
# The log was not written, or not synced: a later sync of the same pages says nothing (see `log_at_rest`).
SQLITE_DISK_FAULTS = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}


# InternalError: a PostgreSQL that takes no writes for a while, such as a standby; NoConnection: all are in use.
_AWAY = (OperationalError, InterfaceError, InternalError, NoConnection)


class Database:
    """One engine and its two kinds of transaction."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = _engine(url)
        self.in_doubt = False  # a write or sync of SQLite's log failed: no durable transaction until it is proven
        self._kept: deque[PoolProxiedConnection] = deque()  # for `cursor`, out of the pool
        # Told of it, and proves the log. A process without one acknowledges nothing, and goes on without doubting.
        self.on_doubt: Callable[[], None] | None = None

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A transaction that writes: committed when the block ends well, rolled back when it does not."""
        self._require_no_doubt()
        with self._session({"sqlite_begin": "IMMEDIATE"}) as session, session.begin():
            yield session

    @contextmanager
    def begin_lightly(self) -> Iterator[Session]:
        """A transaction that writes but does not wait for the disk; the next durable commit takes it along.

        For claims and signs of life alone, whose loss in a power cut costs a repetition and nothing else: it survives
        every death of this process, and the database stays whole. On a disk that takes milliseconds to sync, that is
        most of what the queue would cost.
        """
        light = {"sqlite_begin": "IMMEDIATE", "sqlite_synchronous": "NORMAL"}
        if self.in_doubt:
            light["sqlite_checkpoint"] = "0"  # that would be a sync
        with self._session(light) as session, session.begin():
            if self.engine.dialect.name == "postgresql":
                session.execute(_SOON)
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads; it never waits for a writer."""
        with self._session({"sqlite_begin": "DEFERRED"}) as session, session.begin():
            yield session

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """The same as `begin` without a session, for the receiver's hot path."""
        driver = self.engine.dialect.loaded_dbapi
        self._require_no_doubt()
        committing = False
        try:
            with self._writer() as connection:
                raw = connection.cursor()
                try:
                    if self.engine.dialect.name == "sqlite":
                        raw.execute("BEGIN IMMEDIATE")
                    yield Cursor(raw, self.engine.dialect)
                    committing = True
                    connection.commit()
                except BaseException:
                    connection.rollback()
                    raise
                finally:
                    raw.close()
        except (driver.OperationalError, driver.InterfaceError, driver.InternalError, *_AWAY) as error:
            raise self._refusal(error, committing=committing) from error

    @contextmanager
    def _writer(self) -> Iterator[Any]:
        """A connection whose commits are on disk when they return.

        SQLite's is kept between transactions: it reads anew what others wrote and nothing else, and a turn through the
        pool costs as much as the transaction. One that failed goes back there. PostgreSQL's come from the pool each
        time, which knows whether the server is still there.
        """
        if self.engine.dialect.name != "sqlite":
            with closing(self.engine.raw_connection()) as pooled:
                yield pooled
            return
        try:
            kept = self._kept.pop()
        except IndexError:
            kept = self.engine.raw_connection()
            # The pooled connection may have come from `begin_lightly`.
            kept.cursor().execute("PRAGMA synchronous=FULL").close()
        try:
            yield kept.dbapi_connection
        except BaseException:
            kept.close()
            raise
        self._kept.append(kept)

    def checkpoint(self) -> None:
        """Copy what SQLite's log holds into the database, beside the writers, so that none of them has to."""
        if self.engine.dialect.name == "sqlite" and not self.in_doubt:
            try:
                with closing(self.engine.raw_connection()) as connection:
                    connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").close()
            except (sqlite3.Error, *_AWAY) as error:
                self._refusal(error)

    @contextmanager
    def log_at_rest(self) -> Iterator[Path | None]:
        """SQLite's log while nobody writes, for the block to write it anew (None: PostgreSQL sees to its own disk).

        If the block ends well, the log's pages are copied into the database and synced there, every connection is
        opened anew, and the database is in doubt no more.

        Raises:
            DatabaseAway: the database refuses still.
        """
        if self.engine.dialect.name != "sqlite":
            self.dispose()
            with self.read() as session:
                session.execute(text("SELECT 1"))
            yield None
        else:
            path = Path(self.engine.url.database or "")
            try:
                with closing(sqlite3.connect(path, isolation_level=None, timeout=SQLITE_BUSY_MS / 1000)) as connection:
                    connection.execute("PRAGMA synchronous=FULL")
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield path.with_name(f"{path.name}-wal")
                    finally:
                        connection.execute("ROLLBACK")
                    # Emptied, for the transaction that failed may still stand behind its end. Not while others read.
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                raise self._refusal(error) from error
            self.dispose()
        self.in_doubt = False

    def dispose(self) -> None:
        """Close every connection (needed after a fork)."""
        with suppress(IndexError):  # the last one may be taken into use meanwhile
            while True:
                self._kept.pop().close()
        self.engine.dispose()

    @contextmanager
    def _session(self, options: dict[str, Any]) -> Iterator[Session]:
        try:
            with Session(self.engine.execution_options(**options), expire_on_commit=False) as session:
                yield session
        except _AWAY as error:
            raise self._refusal(error) from error

    def _require_no_doubt(self) -> None:
        if self.in_doubt:
            raise DatabaseAway(
                "The database takes nothing: its disk failed, and is not proven yet.",
                cure="Look at its disk and the kernel's log; once the disk is well it goes on by itself.",
            )

    def _refusal(self, error: Exception, *, committing: bool = False) -> DatabaseAway:
        """The driver's error as the house's own; doubt begins here."""
        raw = error.orig if isinstance(error, DBAPIError) and error.orig else error
        fault = getattr(raw, "sqlite_errorcode", 0) in SQLITE_DISK_FAULTS
        if fault and self.on_doubt is not None:
            self.in_doubt = True
            self.on_doubt()
        # A server that goes away at a commit may have carried it out.
        unknown = committing and (fault or self.engine.dialect.name != "sqlite")
        refusal = OutcomeUnknown if unknown else DatabaseAway
        return refusal(f"The database refused: {_first_line(raw)}.", cure=cure(raw))


def past_mapper(session: Session) -> Connection:
    """The session's connection, for what every image passes: in the tables' own terms and built once, a statement costs
    a third of what the mapper takes. What the session still holds back is written first, as it does for its own."""
    session.flush()
    return session.connection()


@lru_cache
def database() -> Database:
    """This process's database."""
    return Database(settings().database())


def _engine(url: str) -> Engine:
    """Raises ConfigurationError when the URL is none, or of a database that is not known here."""
    sqlite = {"connect_args": {"timeout": SQLITE_BUSY_MS / 1000, "check_same_thread": False}}
    others = {"pool_pre_ping": True, "pool_size": 10, "max_overflow": 20}
    try:
        engine = create_engine(url, **(sqlite if url.startswith("sqlite") else others))
    except (ArgumentError, ImportError, ValueError) as error:
        # The URL itself may hold a password.
        what = f"SONOMARK_DATABASE_URL cannot be used ({type(error).__name__})."
        raise ConfigurationError(what, cure=_URLS) from error
    if engine.dialect.name == "postgresql":
        patience.bound(engine)
    if not url.startswith("sqlite"):
        return engine
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    # The driver's own transaction handling starts writers as readers, and an upgrade that meets another writer
    # fails at once with SQLITE_BUSY instead of waiting; so it is switched off and BEGIN is sent below.
    connection.isolation_level = None
    connection.create_function(days.SQLITE_FUNCTION, 2, days.of_sqlite, deterministic=True)
    cursor = connection.cursor()
    _switch_to_wal(cursor)
    # FULL: a commit is on disk when it returns. NORMAL loses acknowledged instances in a power cut.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_MS}")
    # The commit that carries the log past this many pages also copies them: rarely, and see `checkpoint`.
    cursor.execute("PRAGMA wal_autocheckpoint=4000")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """Of several first connections to a new database one switches, and SQLite lets the others fail instead of wait."""
    deadline = time.monotonic() + SQLITE_BUSY_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(f"PRAGMA synchronous={options.get('sqlite_synchronous', 'FULL')}")
    if pages := options.get("sqlite_checkpoint"):
        connection.exec_driver_sql(f"PRAGMA wal_autocheckpoint={pages}")
    connection.exec_driver_sql(f"BEGIN {options.get('sqlite_begin', 'DEFERRED')}")


def cause(error: DBAPIError) -> str:
    """The driver's own first line: the statement's parameters may hold patient data and stay out."""
    return _first_line(error.orig or error)


def cure(error: BaseException) -> str | None:
    """What to do where SQLite refused, which is a file and no server; None: as the error itself has it."""
    return _OF_A_FILE if isinstance(error, sqlite3.Error) else None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_OF_A_FILE = "Look at its file in DATA_DIR: who may write to it, and the room and health of its disk."
_SOON = text("SET LOCAL synchronous_commit TO off")
_URLS = "Write it as postgresql+psycopg://USER@HOST:5432/DATABASE, or leave it empty for SQLite in DATA_DIR."
