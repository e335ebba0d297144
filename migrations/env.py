"""Alembic's environment: always the database that the settings name."""

from alembic import context

from service.db.schema import write_window
from service.db.session import database
from service.db.tables import Base

if context.is_offline_mode():
    context.configure(url=database().url, target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with database().engine.connect() as connection:
        # SQLite cannot alter most of a table in place: batch mode copies it.
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
            write_window(connection, context.get_context().get_current_revision())
        # On SQLite Alembic commits each migration by itself and leaves open what follows them.
        connection.commit()
