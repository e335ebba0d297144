"""Re-evaluations: studies judged again by stored annotations."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "reevaluations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("rulebook_version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("requested_by", sa.String(length=64), nullable=False),
        sa.Column("records", sa.Boolean(), nullable=False),
        sa.Column("first_study", sa.BigInteger(), nullable=False),
        sa.Column("last_study", sa.BigInteger(), nullable=False),
        sa.Column("received_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("received_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reached", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["rulebook_version_id"],
            ["rulebook_versions.id"],
            name=op.f("fk_reevaluations_rulebook_version_id_rulebook_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reevaluations")),
    )
    with op.batch_alter_table("reevaluations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reevaluations_rulebook_version_id"), ["rulebook_version_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("reevaluations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_reevaluations_rulebook_version_id"))

    op.drop_table("reevaluations")
