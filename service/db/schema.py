"""Bringing the database's schema up to this version of the code."""

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.exc import DBAPIError

from service.db.session import Database
from service.errors import DatabaseAway, SchemaError
from service.settings import HOUSE


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
        raise DatabaseAway(f"The database refused: {type(error.orig).__name__}.") from error


def migrate(revision: str = "head") -> None:
    """Move the schema up to ``revision``; does nothing when it is there already."""
    command.upgrade(_config(), revision)


def downgrade(revision: str) -> None:
    """Move the schema down to ``revision``."""
    command.downgrade(_config(), revision)


def require_current(database: Database) -> None:
    """Raise SchemaError unless the schema is the one this code was written for."""
    here, wanted = current(database), newest()
    if here == wanted:
        return
    if here is None:
        raise SchemaError("The database has no Sonomark schema yet.")
    try:
        ScriptDirectory.from_config(_config()).get_revision(here)
    except CommandError as error:
        raise SchemaError(
            f"The database is at revision {here}, which is newer than this version knows ({wanted}).",
            cure="Install the newer Sonomark again, or restore the backup made before the upgrade.",
        ) from error
    raise SchemaError(f"The database is at revision {here}; this version needs {wanted}.")
