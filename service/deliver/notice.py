"""What a notification says of a flagged study: which requirement is missing and where to look. No patient data."""

from __future__ import annotations

from typing import Any

from service.db import days
from service.db.tables import FindingState, Study, VerdictRecord


def as_json(study: Study, verdict: VerdictRecord, base: str) -> dict[str, Any]:
    """The body of a webhook."""
    return {
        "event": "study.flagged",
        "study_instance_uid": study.study_instance_uid,
        "verdict": verdict.verdict.value,
        "judged_at": verdict.created_at.isoformat(),
        "rulebook": verdict.rulebook,
        "station": study.station,
        "received_at": study.first_received_at.isoformat(),
        "missing": [
            {"requirement": finding.requirement, "severity": finding.severity.value}
            for finding in verdict.findings
            if finding.state is FindingState.MISSING
        ],
        "link": link(study, base),
    }


def as_text(study: Study, verdict: VerdictRecord, base: str) -> tuple[str, str]:
    """Subject and text of a mail."""
    missing = [finding for finding in verdict.findings if finding.state is FindingState.MISSING]
    where = " ".join(study.station.split()) or "an unnamed station"  # in a subject no line may end
    received = study.first_received_at.astimezone(days.zone())
    lines = [
        f"A study from {where}, received at {received:%H:%M}, lacks a required annotation:",
        "",
        *(f"  - {finding.sentence}" for finding in missing),
        "",
        f"Look at it: {link(study, base)}" if base else "Look at it in the worklist.",
    ]
    return f"Sonomark: {len(missing)} missing on a study from {where}", "\n".join(lines)


def link(study: Study, base: str) -> str:
    """The study's page."""
    return f"{base.rstrip('/')}/studies/{study.study_instance_uid}" if base else ""
