"""From a finding to its study through standing verdicts alone, for the worklist's filter on what is missing."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    standing = sa.text("superseded_at IS NULL AND instance_id IS NULL")
    op.create_index(
        "ix_verdicts_standing", "verdicts", ["id", "study_id"], sqlite_where=standing, postgresql_where=standing
    )


def downgrade() -> None:
    op.drop_index("ix_verdicts_standing", "verdicts")
