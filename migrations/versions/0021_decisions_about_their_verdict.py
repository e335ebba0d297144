"""Decisions about a verdict that no longer stands, which re-evaluations and late images had left on their studies.

The reviews stay as they are: only what the studies say of them changes, as docs/adr/15 has it.
"""

from itertools import groupby

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

REVIEWS = """
    SELECT reviews.study_id, reviews.decision, EXISTS (
        SELECT 1 FROM verdicts AS seen JOIN verdicts AS later ON later.study_id = seen.study_id
            AND later.instance_id IS NULL AND later.id > seen.id
        WHERE seen.id = COALESCE(reviews.verdict_id, (SELECT MIN(v.id) FROM verdicts AS v
                WHERE v.study_id = reviews.study_id AND v.instance_id IS NULL))
            AND (later.verdict <> seen.verdict OR EXISTS (
                SELECT 1 FROM findings AS lack WHERE lack.verdict_id = later.id
                    AND lack.state IN ('missing', 'uncertain') AND lack.severity <> 'info'
                    AND NOT EXISTS (SELECT 1 FROM findings AS known WHERE known.verdict_id = seen.id
                        AND known.requirement = lack.requirement AND known.state IN ('missing', 'uncertain')
                        AND known.severity <> 'info')))) AS outdated
    FROM reviews JOIN studies ON studies.id = reviews.study_id
    WHERE studies.decision IS NOT NULL ORDER BY reviews.study_id, reviews.id
"""
ENDED = (
    "UPDATE studies SET decision = NULL, version = version + 1 WHERE id = :id",
    "DELETE FROM double_reads WHERE study_id = :id AND state = 'waiting' AND cause = 'override'",
    "UPDATE double_reads SET first_user_id = NULL, first_answer = NULL, first_at = NULL, verdict = NULL, first_note = ''"
    " WHERE study_id = :id AND state = 'waiting' AND NOT first_blinded",
    "UPDATE double_reads SET state = 'done', adjudicated_at = CURRENT_TIMESTAMP"
    " WHERE study_id = :id AND state = 'disagreed' AND NOT first_blinded",
)


def upgrade() -> None:
    connection = op.get_bind()
    ended = []
    for study_id, reviews in groupby(connection.execute(sa.text(REVIEWS)).all(), key=lambda row: row.study_id):
        left = []
        for review in reviews:
            if review.decision != "withdraw":
                left.append(review)
            elif left:
                left.pop()
        if left and left[-1].outdated:
            ended.append({"id": study_id})
    for statement in ENDED if ended else ():
        connection.execute(sa.text(statement), ended)


def downgrade() -> None:
    pass
