"""Checks of archived bytes, retention policies, legal holds and tombstones."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    conditions = sa.Enum("ok", "damaged", "missing", name="condition", native_enum=False, length=24)
    op.create_table(
        "object_checks",
        sa.Column("instance_id", ID, nullable=False, autoincrement=False),
        sa.Column("checked_at", TIME, nullable=False),
        sa.Column("condition", conditions, nullable=False),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_object_checks_instance_id_instances")),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_object_checks")),
    )
    ill = sa.text("condition <> 'ok'")
    op.create_index("ix_object_checks_ill", "object_checks", ["condition"], sqlite_where=ill, postgresql_where=ill)
    op.create_table(
        "verifications",
        sa.Column("id", ID, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("reached", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("checked", sa.Integer(), nullable=False),
        sa.Column("damaged", sa.Integer(), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verifications")),
    )
    op.create_table(
        "retention_policies",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("toml", sa.Text(), nullable=False),
        sa.Column("created_by", sa.String(length=64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("activated_by", sa.String(length=64), nullable=False),
        sa.Column("activated_at", TIME, nullable=True),
        sa.Column("retired_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_policies")),
        sa.UniqueConstraint("sha256", name=op.f("uq_retention_policies_sha256")),
    )
    op.create_table(
        "legal_holds",
        sa.Column("id", ID, nullable=False),
        sa.Column("study_id", ID, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_by", sa.String(length=64), nullable=False),
        sa.Column("placed_at", TIME, nullable=False),
        sa.Column("lifted_by", sa.String(length=64), nullable=False),
        sa.Column("lifted_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_legal_holds_study_id_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_legal_holds")),
    )
    op.create_index(op.f("ix_legal_holds_study_id"), "legal_holds", ["study_id"])
    op.create_table(
        "releases",
        sa.Column("instance_id", ID, nullable=False, autoincrement=False),
        sa.Column("policy_id", ID, nullable=False),
        sa.Column("rule", sa.String(length=128), nullable=False),
        sa.Column("released_at", TIME, nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["instance_id"], ["instances.id"], name=op.f("fk_releases_instance_id_instances")),
        sa.ForeignKeyConstraint(
            ["policy_id"], ["retention_policies.id"], name=op.f("fk_releases_policy_id_retention_policies")
        ),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_releases")),
    )
    op.create_index(op.f("ix_releases_policy_id"), "releases", ["policy_id"])
    undone = sa.text("deleted_at IS NULL")
    op.create_index("ix_releases_undone", "releases", ["instance_id"], sqlite_where=undone, postgresql_where=undone)


def downgrade() -> None:
    for table in ("releases", "legal_holds", "retention_policies", "verifications", "object_checks"):
        op.drop_table(table)
