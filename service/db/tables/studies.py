"""What came in: studies, series, instances."""

from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Computed, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.compliance.outcome import Verdict
from service.db.tables.base import Base, Id, named, now

if TYPE_CHECKING:
    from service.db.tables.analyses import Analysis

# The values of Study.rank: flagged, uncertain, not judged yet, nothing to do, decided by a person.
FLAGGED, UNCERTAIN, WAITING, QUIET, DECIDED = range(5)


class Decision(StrEnum):
    """What a reviewer said; append-only, the newest one that stands outranks the verdict, see db/decisions.py."""

    CONFIRM = "confirm"
    OVERRIDE = "override"
    RETAKE = "retake"
    WITHDRAW = "withdraw"  # undo of the reviewer's last decision


# The words of a name, as PostgreSQL indexes them, see db/names.py: its parser alone would take DR.MILLER for a host.
NAME_WORDS = r"to_tsvector('simple', translate(patient_name, '^=.,-/_\''', '         '))"


def _beginnings(column: str) -> Index:
    """An index that PostgreSQL may use for LIKE 'beginning%' whatever the database's collation."""
    operators = {column: "text_pattern_ops"}
    return Index(f"ix_studies_{column}_begins", column, postgresql_ops=operators).ddl_if(dialect="postgresql")


class Study(Base):
    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    patient_name: Mapped[str] = mapped_column(String(324), default="")
    patient_id: Mapped[str] = mapped_column(String(64), default="", index=True)
    patient_birth_date: Mapped[date | None]
    patient_sex: Mapped[str] = mapped_column(String(16), default="")
    accession_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    study_date: Mapped[date | None] = mapped_column(index=True)
    description: Mapped[str] = mapped_column(String(256), default="")
    procedure: Mapped[str] = mapped_column(String(256), default="")
    body_part: Mapped[str] = mapped_column(String(64), default="")
    laterality: Mapped[str] = mapped_column(String(16), default="")
    institution: Mapped[str] = mapped_column(String(128), default="")
    station: Mapped[str] = mapped_column(String(64), default="", index=True)
    operator: Mapped[str] = mapped_column(String(324), default="", index=True)
    calling_ae_title: Mapped[str] = mapped_column(String(16), default="")
    synthetic: Mapped[bool] = mapped_column(default=False)  # sent by a self-test; never in reports
    conflict: Mapped[bool] = mapped_column(default=False)  # a SOP Instance UID came twice with different bytes
    first_received_at: Mapped[datetime] = mapped_column(default=now)
    last_received_at: Mapped[datetime] = mapped_column(default=now, index=True)
    settles_at: Mapped[datetime] = mapped_column(default=now)
    settled: Mapped[bool] = mapped_column(default=False)  # False again when a late image arrives
    verdict: Mapped[Verdict | None] = mapped_column(named(Verdict))  # of the newest study-level row in `verdicts`
    decision: Mapped[Decision | None] = mapped_column(named(Decision))  # of the newest standing review
    version: Mapped[int] = mapped_column(default=1)  # grows with every change a reviewer should know of
    changed_at: Mapped[datetime] = mapped_column(default=now, onupdate=now, index=True)  # what the live worklist asks
    # The worklist's first sort key, computed by the database so that no writer of verdict or decision can forget it.
    rank: Mapped[int] = mapped_column(
        Computed(
            "CASE WHEN decision IS NOT NULL THEN 4 WHEN verdict IS NULL THEN 2 WHEN verdict = 'non_compliant' THEN 0"
            " WHEN verdict = 'indeterminate' THEN 1 ELSE 3 END",
            persisted=True,
        )
    )

    series: Mapped[list["Series"]] = relationship(back_populates="study")
    instances: Mapped[list["Instance"]] = relationship(back_populates="study")

    __table_args__ = (
        Index("ix_studies_worklist", "rank", "last_received_at", "id"),
        Index("ix_studies_settling", "settled", "settles_at"),
        Index("ix_studies_patient_names", text(NAME_WORDS), postgresql_using="gin").ddl_if(dialect="postgresql"),
        _beginnings("patient_id"),
        _beginnings("accession_number"),
    )


class Series(Base):
    __tablename__ = "series"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16), default="")
    description: Mapped[str] = mapped_column(String(256), default="")
    body_part: Mapped[str] = mapped_column(String(64), default="")
    laterality: Mapped[str] = mapped_column(String(16), default="")

    study: Mapped[Study] = relationship(back_populates="series")

    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)


class Instance(Base):
    """One stored version of a SOP instance: identical bytes are one row, different bytes are two."""

    __tablename__ = "instances"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))  # of the data set's bytes as the peer sent them
    size: Mapped[int] = mapped_column(BigInteger)  # bytes of the data set
    archive_key: Mapped[str] = mapped_column(String(256))  # relative path in the archive, made from the digest
    calling_ae_title: Mapped[str] = mapped_column(String(16), default="")
    correlation_id: Mapped[str] = mapped_column(String(32), default="")  # of the association it came by
    instance_number: Mapped[int | None]
    rows: Mapped[int] = mapped_column(default=0)
    columns: Mapped[int] = mapped_column(default=0)
    number_of_frames: Mapped[int] = mapped_column(default=0)  # 0: no pixel data
    photometric_interpretation: Mapped[str] = mapped_column(String(16), default="")
    header: Mapped[dict[str, Any]] = mapped_column(default=dict)  # what rules may ask of it: dicom/header.py
    conflict: Mapped[bool] = mapped_column(default=False)
    received_at: Mapped[datetime] = mapped_column(default=now, index=True)

    study: Mapped[Study] = relationship(back_populates="instances")
    analyses: Mapped[list["Analysis"]] = relationship(back_populates="instance", order_by="Analysis.id")

    # Each index is another page that the commit before an answer waits for: one serves studies and their series, and
    # the constraint's own finds a SOP Instance UID.
    __table_args__ = (
        UniqueConstraint("sop_instance_uid", "sha256"),
        Index("ix_instances_series", "study_id", "series_id"),
    )
