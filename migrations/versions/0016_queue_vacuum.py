"""The queue's table is vacuumed after so many analyses, and no longer after a fifth of the archive (PostgreSQL only)."""

from alembic import op

revision = "0016"
down_revision = "0015"

VACUUMED = {
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_threshold": "20000",
    "vacuum_index_cleanup": "on",
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE analyses SET ({', '.join(f'{name} = {value}' for name, value in VACUUMED.items())})")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE analyses RESET ({', '.join(VACUUMED)})")
