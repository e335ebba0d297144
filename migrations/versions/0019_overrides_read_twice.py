"""Why a study is read twice: drawn for the sample, or overridden where the rule book asks for a second reader."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    causes = sa.Enum("sample", "override", name="cause", native_enum=False, length=24)
    op.add_column("double_reads", sa.Column("cause", causes, nullable=False, server_default="sample"))


def downgrade() -> None:
    op.drop_column("double_reads", "cause")
