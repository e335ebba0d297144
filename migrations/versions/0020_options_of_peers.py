"""Options of the peers that administrators enter, as the settings have had them: those entered so far have the usual."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

OPTIONS = (
    ("reports", sa.String(24), "new"),
    ("tls", sa.String(24), "optional"),
    ("certificate", sa.String(255), ""),
    ("character_set", sa.String(128), ""),
    ("priority", sa.Integer(), "0"),
    ("max_associations", sa.Integer(), "0"),
)


def upgrade() -> None:
    for name, kind, usual in OPTIONS:
        op.add_column("peers", sa.Column(name, kind, nullable=False, server_default=usual))


def downgrade() -> None:
    for name, _, _ in OPTIONS[::-1]:
        op.drop_column("peers", name)
