"""What was judged and by which rules: verdicts, findings, rule books."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.compliance.outcome import FindingState, Severity, Verdict
from service.db.tables.base import Base, Id, named, now, where

# The conditions of partial indexes; a planner knows them again only in the same words.
OF_STUDIES = "instance_id IS NULL"
LACKING = "state IN ('missing', 'uncertain')"


class VerdictRecord(Base):
    """One evaluation of an instance or (``instance_id`` null) of a study; the standing one is not superseded."""

    __tablename__ = "verdicts"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id"), index=True)
    verdict: Mapped[Verdict] = mapped_column(named(Verdict))
    network: Mapped[str] = mapped_column(String(96), default="")
    thresholds: Mapped[str] = mapped_column(String(16), default="")
    rulebook: Mapped[str] = mapped_column(String(128))  # name@version+sha256[:12]
    code_version: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    superseded_at: Mapped[datetime | None]

    findings: Mapped[list["Finding"]] = relationship(back_populates="verdict_record", order_by="Finding.id")

    __table_args__ = (
        Index(
            "uq_verdicts_standing_instance",
            "instance_id",
            unique=True,
            sqlite_where=text("superseded_at IS NULL AND instance_id IS NOT NULL"),
            postgresql_where=text("superseded_at IS NULL AND instance_id IS NOT NULL"),
        ),
        Index(
            "uq_verdicts_standing_study",
            "study_id",
            unique=True,
            sqlite_where=text("superseded_at IS NULL AND instance_id IS NULL"),
            postgresql_where=text("superseded_at IS NULL AND instance_id IS NULL"),
        ),
        # From a finding to its study, for what the worklist is asked to find by what is missing.
        Index("ix_verdicts_standing", "id", "study_id", **where("superseded_at IS NULL AND instance_id IS NULL")),
        # All that a report asks of a study's verdicts, so that it reads no row of the images' tenfold.
        Index(
            "ix_verdicts_of_studies", "study_id", "created_at", "superseded_at", "verdict", "id", **where(OF_STUDIES)
        ),
    )


class Finding(Base):
    """One requirement met, missing or uncertain, with the evidence."""

    __tablename__ = "findings"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdicts.id"), index=True)
    requirement: Mapped[str] = mapped_column(String(96), index=True)
    state: Mapped[FindingState] = mapped_column(named(FindingState))
    severity: Mapped[Severity] = mapped_column(named(Severity))
    sentence: Mapped[str] = mapped_column(Text)  # what is missing, where, by which rule, what to do
    evidence: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {"frames": [{sop_instance_uid, frame, score}], …}

    verdict_record: Mapped[VerdictRecord] = relationship(back_populates="findings")

    __table_args__ = (Index("ix_findings_lacking", "requirement", "verdict_id", **where(LACKING)),)


class RulebookVersion(Base):
    """One version of a rule book, kept for ever so that old verdicts can be explained."""

    __tablename__ = "rulebook_versions"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(32))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    toml: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    activated_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]


class Reevaluation(Base):
    """Studies judged again by stored annotations: for good, or only to see what a rule book would change."""

    __tablename__ = "reevaluations"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    rulebook_version_id: Mapped[int] = mapped_column(ForeignKey("rulebook_versions.id"), index=True)
    requested_by: Mapped[str] = mapped_column(String(64))
    records: Mapped[bool]  # False: what-if, nothing is written
    first_study: Mapped[int] = mapped_column(BigInteger)  # ids, both included; in the order in which studies came
    last_study: Mapped[int] = mapped_column(BigInteger)
    received_from: Mapped[datetime | None]
    received_to: Mapped[datetime | None]
    reached: Mapped[int] = mapped_column(BigInteger, default=0)  # where its first slice begins
    total: Mapped[int] = mapped_column(default=0)  # studies in the range when it was asked for
    done: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0, server_default="0")  # of those done: they could not be judged
    changes: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {"compliant>non_compliant": {"count", "studies"}}
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]


class ReevaluationSlice(Base):
    """A part of a re-evaluation's studies. Whoever works on it holds its row, so that others take another one."""

    __tablename__ = "reevaluation_slices"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    reevaluation_id: Mapped[int] = mapped_column(ForeignKey("reevaluations.id"), index=True)
    reached: Mapped[int] = mapped_column(BigInteger)  # the last study that was looked at
    last_study: Mapped[int] = mapped_column(BigInteger)
    finished_at: Mapped[datetime | None]

    reevaluation: Mapped[Reevaluation] = relationship()
