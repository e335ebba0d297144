"""Bringing the database's schema up to this version of the code, and telling which versions may run against it.

A migration expands: it adds what older code does not ask for, so that the older code may go on, and start again, while
the newer takes over. Whose code may run stands in the database itself (the *window*), because old code cannot know what
a newer migration does. A migration that takes something away says ``contracts = True``: the code of all revisions
before it is shut out.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, delete, insert, inspect, select
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from service import logs
from service.db.session import Database, cause, cure
from service.db.tables import SchemaWindow
from service.errors import DatabaseAway, SchemaError
from service.settings import HOUSE

log = logs.get(__name__)

LOCK_TIMEOUT_S = 2
ONE_AT_A_TIME = 0x736F6E6F  # the key of PostgreSQL's advisory lock, see `alone`
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
_MET_LOCKS = ("40P01", "55P03")  # PostgreSQL's deadlock_detected and lock_not_available


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(HOUSE / "migrations"))
    return config


def newest() -> str:
    """The revision that this code was written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise SchemaError("The migrations folder is empty.", cure="Reinstall Sonomark.")
    return head


def current(database: Database) -> str | None:
    """The revision the database stands at; None for an empty one."""
    try:
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise DatabaseAway(f"The database refused: {cause(error)}.", cure=cure(error.orig or error)) from error


def migrate(revision: str = "head") -> None:
    """Move the schema up to ``revision``, while roles work on it; does nothing when it is there already.

    Each migration is a transaction of its own. One that meets the roles' locks in a circle, or waits for them too long,
    gives way to them and is tried again. Raises SchemaError where a newer version has been at work.
    """
    try:
        _patiently(lambda: command.upgrade(_config(), revision))
    except CommandError as error:  # the database stands at a revision that this code has never heard of
        raise SchemaError(
            f"The database is at a revision that this version ({newest()}) does not know: it is newer.",
            cure="Install the newer Sonomark again, or restore the backup made before the upgrade.",
        ) from error


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Of two who migrate at once one waits for the other, and then finds it done: each would make the same tables."""
    if connection.dialect.name != "postgresql":
        yield
        return
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({ONE_AT_A_TIME})")
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({ONE_AT_A_TIME})")
        connection.commit()


def downgrade(revision: str) -> None:
    """Move the schema down to ``revision``."""
    _patiently(lambda: command.downgrade(_config(), revision))


def _patiently(move: Callable[[], None]) -> None:
    for pause_s in (*PAUSES_S, None):
        try:
            move()
            return
        except OperationalError as error:
            if pause_s is None or not _met_locks(error):
                raise DatabaseAway(f"The database refused: {cause(error)}.", cure=cure(error.orig or error)) from error
            log.info("the migration met the locks of running roles and tries again", after_s=pause_s)
            time.sleep(pause_s)
        except DatabaseError as error:
            if type(error) is not DatabaseError:  # what SQLite says of a file that is damaged, or none of its own
                raise
            raise DatabaseAway(f"The database refused: {cause(error)}.", cure=cure(error.orig or error)) from error


def _met_locks(error: OperationalError) -> bool:
    if isinstance(error.orig, sqlite3.OperationalError):
        return error.orig.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY  # somebody else migrates it meanwhile
    return getattr(error.orig, "sqlstate", "") in _MET_LOCKS


def write_window(connection: Connection, revision: str | None) -> None:
    """Record whose code may run against the schema at ``revision``; part of each migration's own transaction."""
    if not inspect(connection).has_table(SchemaWindow.__tablename__):
        return
    connection.execute(delete(SchemaWindow))
    if rows := [{"revision": compatible} for compatible in window(revision)]:
        connection.execute(insert(SchemaWindow), rows)


def window(revision: str | None, scripts: ScriptDirectory | None = None) -> Iterator[str]:
    """The revisions whose code may run against a schema at ``revision``: back to the last one that took away."""
    if revision is None:
        return
    for script in (scripts or ScriptDirectory.from_config(_config())).walk_revisions("base", revision):
        yield script.revision
        if getattr(script.module, "contracts", False):
            return


def require_file(database: Database) -> None:
    """Raises SchemaError where SQLite has none: to ask it would make an empty one, or fail with less to say."""
    file = database.engine.url.database if database.engine.dialect.name == "sqlite" else None
    if file and not Path(file).exists():
        raise SchemaError(
            f"There is no database at {file} yet.",
            cure=f"{SchemaError.cure} Where there should be one already, correct SONOMARK_DATA_DIR.",
        )


def require_usable(database: Database) -> str:
    """The schema's revision, if this code may run against it: its own, or a newer one that only added to it.

    Raises SchemaError otherwise.
    """
    require_file(database)
    here, wanted = current(database), newest()
    if here is None:
        raise SchemaError("The database has no Sonomark schema yet.")
    if here == wanted:
        return here
    if _known(here):
        raise SchemaError(f"The database is at revision {here}, which is too old: this version needs {wanted}.")
    if wanted not in _window_in(database):
        raise SchemaError(
            f"The database is at revision {here}, which is newer than this version ({wanted}) can work with.",
            cure="Install the newer Sonomark again, or restore the backup made before the upgrade.",
        )
    log.warning("the database is newer than this version and still fits it", revision=here, written_for=wanted)
    return here


def _known(revision: str) -> bool:
    try:
        ScriptDirectory.from_config(_config()).get_revision(revision)
    except CommandError:
        return False
    return True


def _window_in(database: Database) -> set[str]:
    """What a newer version wrote there."""
    with database.engine.connect() as connection:
        if not inspect(connection).has_table(SchemaWindow.__tablename__):
            return set()
        return set(connection.scalars(select(SchemaWindow.revision)))
