"""Text that was read on frames, and what presentation states and reports say of images."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "remarks",
        sa.Column("id", ID, nullable=False),
        sa.Column("instance_id", ID, nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("x", sa.Integer(), nullable=True),
        sa.Column("y", sa.Integer(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("unit", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_remarks_instance_id_instances")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remarks")),
    )
    with op.batch_alter_table("remarks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_remarks_instance_id"), ["instance_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_remarks_sop_instance_uid"), ["sop_instance_uid"], unique=False)
    op.add_column("annotations", sa.Column("text", sa.Text(), server_default="", nullable=False))
    op.add_column("annotations", sa.Column("text_score", sa.Double(), nullable=True))
    op.add_column("frames", sa.Column("text_read", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("frames", "text_read")
    op.drop_column("annotations", "text_score")
    op.drop_column("annotations", "text")
    op.drop_table("remarks")
