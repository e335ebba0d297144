"""Fewer indexes to write into before an instance is acknowledged: three of them were answered by others."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    finished = sa.text("finished_at IS NOT NULL")
    op.create_index("ix_instances_series", "instances", ["study_id", "series_id"])
    op.create_index(
        "ix_analyses_finished", "analyses", ["finished_at"], sqlite_where=finished, postgresql_where=finished
    )
    for column in ("study_id", "series_id", "sop_instance_uid"):
        op.drop_index(f"ix_instances_{column}", "instances")
    op.drop_index("ix_analyses_finished_at", "analyses")


def downgrade() -> None:
    op.create_index("ix_analyses_finished_at", "analyses", ["finished_at"])
    for column in ("study_id", "series_id", "sop_instance_uid"):
        op.create_index(f"ix_instances_{column}", "instances", [column])
    op.drop_index("ix_analyses_finished", "analyses")
    op.drop_index("ix_instances_series", "instances")
