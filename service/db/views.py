"""SQL views for reporting tools: what docs/sql-views.md promises, over whatever the tables look like.

They hold no name, number or birth date of a patient. A migration may copy a table, which SQLite refuses while a view
looks at it: so they are dropped before every migration and made again after the last one (migrations/env.py).
"""

from sqlalchemy import Connection, text

_OUTCOME = """
    CASE
        WHEN studies.decision = 'retake' THEN 'non_compliant'
        WHEN studies.decision IN ('confirm', 'override') AND studies.verdict IN ('non_compliant', 'indeterminate')
            THEN CASE studies.decision WHEN 'override' THEN 'compliant' ELSE 'non_compliant' END
        WHEN studies.decision = 'override' THEN 'non_compliant'
        ELSE studies.verdict
    END
"""
_EXAM = "COALESCE(NULLIF(studies.procedure, ''), NULLIF(studies.description, ''), studies.body_part)"

VIEWS = {
    "bi_studies": f"""
        SELECT studies.study_instance_uid, studies.first_received_at AS received_at, studies.last_received_at,
            studies.study_date, {_EXAM} AS exam, studies.body_part, studies.laterality, studies.station,
            studies.operator, studies.institution, studies.calling_ae_title, studies.settled, studies.verdict,
            studies.decision, {_OUTCOME} AS outcome,
            CASE WHEN {_OUTCOME} = 'compliant' THEN 1 ELSE 0 END AS numerator,
            CASE WHEN {_OUTCOME} IN ('compliant', 'non_compliant') THEN 1 ELSE 0 END AS denominator
        FROM studies WHERE NOT studies.synthetic
    """,
    "bi_findings": f"""
        SELECT studies.study_instance_uid, studies.first_received_at AS received_at, {_EXAM} AS exam, studies.station,
            studies.operator, studies.institution, findings.requirement, findings.state, findings.severity,
            findings.sentence, verdicts.rulebook, verdicts.network, verdicts.created_at AS judged_at
        FROM studies
        JOIN verdicts ON verdicts.study_id = studies.id AND verdicts.instance_id IS NULL
            AND verdicts.superseded_at IS NULL
        JOIN findings ON findings.verdict_id = verdicts.id
        WHERE NOT studies.synthetic
    """,
    "bi_verdicts": """
        SELECT studies.study_instance_uid, instances.sop_instance_uid, verdicts.verdict, verdicts.rulebook,
            verdicts.network, verdicts.thresholds, verdicts.code_version, verdicts.created_at, verdicts.superseded_at
        FROM verdicts
        JOIN studies ON studies.id = verdicts.study_id
        LEFT JOIN instances ON instances.id = verdicts.instance_id
        WHERE NOT studies.synthetic
    """,
    "bi_reviews": """
        SELECT studies.study_instance_uid, reviews.created_at, reviews.decision, reviews.reason,
            users.name AS reviewer
        FROM reviews
        JOIN studies ON studies.id = reviews.study_id
        JOIN users ON users.id = reviews.user_id
        WHERE NOT studies.synthetic
    """,
    "bi_annotations": """
        SELECT studies.study_instance_uid, instances.sop_instance_uid, frames.number AS frame, annotations.kind,
            annotations.score, annotations.source, annotations.x, annotations.y, annotations.width, annotations.height
        FROM annotations
        JOIN frames ON frames.id = annotations.frame_id
        JOIN analyses ON analyses.id = frames.analysis_id AND NOT analyses.superseded
        JOIN instances ON instances.id = analyses.instance_id
        JOIN studies ON studies.id = instances.study_id
        WHERE NOT studies.synthetic
    """,
    "bi_corrections": """
        SELECT studies.study_instance_uid, MIN(bad.created_at) AS flagged_at, MIN(good.created_at) AS corrected_at
        FROM studies
        JOIN verdicts AS bad ON bad.study_id = studies.id AND bad.instance_id IS NULL
            AND bad.verdict = 'non_compliant'
        JOIN verdicts AS good ON good.study_id = studies.id AND good.instance_id IS NULL
            AND good.verdict = 'compliant' AND good.created_at > bad.created_at
        WHERE NOT studies.synthetic AND EXISTS (
            SELECT 1 FROM instances WHERE instances.study_id = studies.id
                AND instances.received_at > bad.created_at AND instances.received_at <= good.created_at)
        GROUP BY studies.id, studies.study_instance_uid
    """,
    "bi_double_reads": """
        SELECT studies.study_instance_uid, double_reads.cause, double_reads.state, double_reads.drawn_at,
            CASE WHEN double_reads.state <> 'waiting' THEN double_reads.verdict END AS verdict,
            CASE WHEN double_reads.state <> 'waiting' THEN double_reads.first_answer END AS first_answer,
            double_reads.first_blinded, double_reads.first_at, double_reads.second_answer,
            double_reads.second_at, double_reads.adjudicated_answer, double_reads.adjudicated_at
        FROM double_reads JOIN studies ON studies.id = double_reads.study_id
        WHERE NOT studies.synthetic
    """,
    "bi_deliveries": """
        SELECT studies.study_instance_uid, deliveries.kind, deliveries.state, deliveries.attempts,
            deliveries.created_at, deliveries.ended_at
        FROM deliveries JOIN studies ON studies.id = deliveries.study_id
        WHERE NOT studies.synthetic
    """,
}


def drop(connection: Connection) -> None:
    """Take the views away, so that the tables below them can be changed."""
    for name in VIEWS:
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))


def make(connection: Connection) -> None:
    """Make every view anew; the schema must be this version's."""
    drop(connection)
    for name, query in VIEWS.items():
        connection.execute(text(f"CREATE VIEW {name} AS {query}"))
