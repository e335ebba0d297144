"""The outbox of results that go to other systems."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    kinds = sa.Enum("sr", "seg", "rejection", "webhook", "mail", name="deliverykind", native_enum=False, length=24)
    states = sa.Enum(
        "waiting", "delivered", "overtaken", "cancelled", name="deliverystate", native_enum=False, length=24
    )
    op.create_table(
        "deliveries",
        sa.Column("id", ID, nullable=False),
        sa.Column("study_id", ID, nullable=False),
        sa.Column("verdict_id", ID, nullable=False),
        sa.Column("review_id", ID, nullable=True),
        sa.Column("kind", kinds, nullable=False),
        sa.Column("target", sa.String(length=256), nullable=False),
        sa.Column("state", states, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("objects", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cure", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_deliveries_study_id_studies")),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdicts.id"], name=op.f("fk_deliveries_verdict_id_verdicts")),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name=op.f("fk_deliveries_review_id_reviews")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_deliveries_study_id"), ["study_id"], unique=False)
        batch_op.create_index(
            "ix_deliveries_due",
            ["next_at", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'waiting'"),
            postgresql_where=sa.text("state = 'waiting'"),
        )


def downgrade() -> None:
    op.drop_table("deliveries")
