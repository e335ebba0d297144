"""Alembic's environment: always the database that the settings name."""

from alembic import context

from service.db import views
from service.db.schema import LOCK_TIMEOUT_S, alone, newest, write_window
from service.db.session import database
from service.db.tables import Base

if context.is_offline_mode():
    context.configure(url=database().url, target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with database().engine.connect() as connection, alone(connection):
        # SQLite cannot alter most of a table in place: batch mode copies it.
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            render_as_batch=True,
            # The roles go on meanwhile: each migration holds its locks for as short as it can, and none waits long in
            # front of everybody else. `service.db.schema.migrate` tries again.
            transaction_per_migration=True,
            on_version_apply=lambda ctx, heads, **_: write_window(ctx.connection, next(iter(heads), None)),
        )
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
            connection.commit()
        views.drop(connection)
        connection.commit()
        with context.begin_transaction():
            context.run_migrations()
        if context.get_context().get_current_revision() == newest():
            views.make(connection)
        connection.commit()
