"""What an evaluation answers: a verdict, and the findings it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The answer for an instance or a study."""

    COMPLIANT = "compliant"
    NON_COMPLIANT = "non_compliant"
    INDETERMINATE = "indeterminate"  # a score between its two thresholds, or sources that disagree: to a person
    NOT_APPLICABLE = "not_applicable"  # no requirement speaks of it


class FindingState(StrEnum):
    """What became of one requirement."""

    MET = "met"
    MISSING = "missing"
    UNCERTAIN = "uncertain"
    NOT_APPLICABLE = "not_applicable"


class Severity(StrEnum):
    """How much a missing requirement weighs; ``info`` never decides a verdict."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    INFO = "info"

    @property
    def rank(self) -> int:
        """0 for the heaviest."""
        return list(Severity).index(self)

    @property
    def and_heavier(self) -> tuple[Severity, ...]:
        """The severities that weigh at least as much, the heaviest first."""
        return tuple(list(Severity)[: self.rank + 1])


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement met, missing, uncertain or not applicable, in words a sonographer reads, with the evidence."""

    requirement: str
    state: FindingState
    severity: Severity
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)  # what JSON can hold, see evaluate.py

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; the same finding always gives the same ones."""
        return {
            "requirement": self.requirement,
            "state": self.state.value,
            "severity": self.severity.value,
            "sentence": self.sentence,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict and its findings, in the rule book's order."""

    verdict: Verdict
    findings: tuple[Finding, ...]


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """One missing requirement decides; else one uncertain one sends it to a person; else one that is met passes it."""
    states = {finding.state for finding in findings if finding.severity is not Severity.INFO}
    if FindingState.MISSING in states:
        return Verdict.NON_COMPLIANT
    if FindingState.UNCERTAIN in states:
        return Verdict.INDETERMINATE
    if FindingState.MET in states:
        return Verdict.COMPLIANT
    return Verdict.NOT_APPLICABLE
