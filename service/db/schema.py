"""Bringing the database's schema up to this version of the code, and telling which versions may run against it.

A migration expands: it adds what older code does not ask for, so that the older code may go on, and start again, while
the newer takes over. Whose code may run stands in the database itself (the *window*), because old code cannot know what
a newer migration does. A migration that takes something away says ``contracts = True``: the code of all revisions
before it is shut out.
"""

from collections.abc import Iterator

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, delete, insert, inspect, select
from sqlalchemy.exc import DBAPIError

from service import logs
from service.db.session import Database, cause
from service.db.tables import SchemaWindow
from service.errors import DatabaseAway, SchemaError
from service.settings import HOUSE

log = logs.get(__name__)


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
        raise DatabaseAway(f"The database refused: {cause(error)}.") from error


def migrate(revision: str = "head") -> None:
    """Move the schema up to ``revision``; does nothing when it is there already."""
    command.upgrade(_config(), revision)


def downgrade(revision: str) -> None:
    """Move the schema down to ``revision``."""
    command.downgrade(_config(), revision)


def write_window(connection: Connection, revision: str | None) -> None:
    """Record whose code may run against the schema at ``revision``; part of the migration's own transaction."""
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


def require_usable(database: Database) -> str:
    """The schema's revision, if this code may run against it: its own, or a newer one that only added to it.

    Raises SchemaError otherwise.
    """
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
