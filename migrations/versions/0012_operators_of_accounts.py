"""Which Operators' Name (0008,1070) an account scans under, as an administrator says."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("users", sa.Column("operator_name", sa.String(324), nullable=True))


def downgrade() -> None:
    op.drop_column("users", "operator_name")
