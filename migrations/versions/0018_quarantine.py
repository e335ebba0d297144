"""An index of what is held back: counted by every look at /metrics, and few among all analyses ever made."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    held_back = sa.text("state = 'quarantined'")
    op.create_index("ix_analyses_quarantine", "analyses", ["id"], sqlite_where=held_back, postgresql_where=held_back)


def downgrade() -> None:
    op.drop_index("ix_analyses_quarantine", "analyses")
