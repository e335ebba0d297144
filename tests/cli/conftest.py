"""What commands need beyond the tables themselves."""

import pytest
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.db import schema
from service.db.session import Database


@pytest.fixture
def db(db: Database) -> Database:
    """An empty database with all tables, which says that it is at this version."""
    with db.engine.begin() as connection:
        MigrationContext.configure(connection).stamp(ScriptDirectory.from_config(schema._config()), "head")
    return db
