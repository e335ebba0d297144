"""Indexes for what people wait for: names by the beginnings of their parts, what is lacking, a study's verdicts."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

NAME_WORDS = r"to_tsvector('simple', translate(patient_name, '^=.,-/_\''', '         '))"


def upgrade() -> None:
    of_studies, lacking = sa.text("instance_id IS NULL"), sa.text("state IN ('missing', 'uncertain')")
    op.create_index(
        "ix_verdicts_of_studies",
        "verdicts",
        ["study_id", "created_at", "superseded_at", "verdict", "id"],
        sqlite_where=of_studies,
        postgresql_where=of_studies,
    )
    op.create_index(
        "ix_findings_lacking",
        "findings",
        ["requirement", "verdict_id"],
        sqlite_where=lacking,
        postgresql_where=lacking,
    )
    if op.get_bind().dialect.name != "postgresql":
        return
    op.create_index("ix_studies_patient_names", "studies", [sa.text(NAME_WORDS)], postgresql_using="gin")
    for column in ("patient_id", "accession_number"):
        name = f"ix_studies_{column}_begins"
        op.create_index(name, "studies", [column], postgresql_ops={column: "text_pattern_ops"})


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in ("patient_id_begins", "accession_number_begins", "patient_names"):
            op.drop_index(f"ix_studies_{name}", "studies")
    op.drop_index("ix_findings_lacking", "findings")
    op.drop_index("ix_verdicts_of_studies", "verdicts")
