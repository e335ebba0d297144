"""How many studies a re-evaluation could not judge."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("reevaluations", sa.Column("failed", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("reevaluations") as table:
        table.drop_column("failed")
