"""Studies drawn for a second, blinded reading."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _reading(name: str) -> sa.Column[str]:
    readings = sa.Enum("complete", "incomplete", "cannot_tell", name="reading", native_enum=False, length=24)
    return sa.Column(name, readings, nullable=True)


def upgrade() -> None:
    states = sa.Enum("waiting", "disagreed", "done", name="doublereadstate", native_enum=False, length=24)
    verdicts = sa.Enum(
        "compliant", "non_compliant", "indeterminate", "not_applicable", name="verdict", native_enum=False, length=24
    )
    op.create_table(
        "double_reads",
        sa.Column("study_id", ID, nullable=False, autoincrement=False),
        sa.Column("state", states, nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", verdicts, nullable=True),
        sa.Column("first_user_id", ID, nullable=True),
        _reading("first_answer"),
        sa.Column("first_blinded", sa.Boolean(), nullable=False),
        sa.Column("first_note", sa.Text(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("second_user_id", ID, nullable=True),
        _reading("second_answer"),
        sa.Column("second_note", sa.Text(), nullable=False),
        sa.Column("second_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("adjudicator_id", ID, nullable=True),
        _reading("adjudicated_answer"),
        sa.Column("adjudicated_note", sa.Text(), nullable=False),
        sa.Column("adjudicated_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_double_reads_study_id_studies")),
        sa.ForeignKeyConstraint(["first_user_id"], ["users.id"], name=op.f("fk_double_reads_first_user_id_users")),
        sa.ForeignKeyConstraint(["second_user_id"], ["users.id"], name=op.f("fk_double_reads_second_user_id_users")),
        sa.ForeignKeyConstraint(["adjudicator_id"], ["users.id"], name=op.f("fk_double_reads_adjudicator_id_users")),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_double_reads")),
    )
    with op.batch_alter_table("double_reads", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_double_reads_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_double_reads_second_at"), ["second_at"], unique=False)


def downgrade() -> None:
    op.drop_table("double_reads")
