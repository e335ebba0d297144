"""Backfills from a PACS, and the studies they found."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    states = sa.Enum("found", "done", "failed", name="backfillstate", native_enum=False, length=24)
    op.create_table(
        "backfills",
        sa.Column("id", ID, nullable=False),
        sa.Column("node", sa.String(length=256), nullable=False),
        sa.Column("first_day", sa.Date(), nullable=False),
        sa.Column("last_day", sa.Date(), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.Column("listed_to", sa.Date(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backfills")),
    )
    op.create_table(
        "backfill_studies",
        sa.Column("backfill_id", ID, nullable=False, autoincrement=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("state", states, nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("fetched", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["backfill_id"], ["backfills.id"], name=op.f("fk_backfill_studies_backfill_id_backfills")
        ),
        sa.PrimaryKeyConstraint("backfill_id", "study_instance_uid", name=op.f("pk_backfill_studies")),
    )


def downgrade() -> None:
    op.drop_table("backfill_studies")
    op.drop_table("backfills")
