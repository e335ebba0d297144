"""The second factor's last time step, and who comes from an identity provider; the audit trail refuses changes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

REFUSAL = "the audit trail is append-only"
POSTGRESQL = f"""
CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()
"""


def upgrade() -> None:
    op.add_column("users", sa.Column("totp_step", sa.BigInteger(), nullable=True))
    op.add_column("users", sa.Column("sso_subject", sa.String(64), nullable=True))
    op.create_index("uq_users_sso_subject", "users", ["sso_subject"], unique=True)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL)
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_append_only_{change.lower()} BEFORE {change} ON audit_events"
            f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_append_only ON audit_events")
        op.execute("DROP FUNCTION audit_append_only()")
    else:
        op.execute("DROP TRIGGER audit_append_only_update")
        op.execute("DROP TRIGGER audit_append_only_delete")
    op.drop_index("uq_users_sso_subject", "users")
    op.drop_column("users", "sso_subject")
    op.drop_column("users", "totp_step")
