"""Slices of a re-evaluation, so that several processes work on one. One that is under way is sliced when it goes on."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "reevaluation_slices",
        sa.Column("id", ID, nullable=False),
        sa.Column("reevaluation_id", ID, nullable=False),
        sa.Column("reached", sa.BigInteger(), nullable=False),
        sa.Column("last_study", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["reevaluation_id"],
            ["reevaluations.id"],
            name=op.f("fk_reevaluation_slices_reevaluation_id_reevaluations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reevaluation_slices")),
    )
    op.create_index("ix_reevaluation_slices_reevaluation_id", "reevaluation_slices", ["reevaluation_id"])


def downgrade() -> None:
    op.drop_table("reevaluation_slices")
