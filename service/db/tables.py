"""The tables. One class per noun; every time is UTC; every state is an enum with its meaning beside it."""

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Computed,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from service.compliance.outcome import FindingState as FindingState
from service.compliance.outcome import Severity as Severity
from service.compliance.outcome import Verdict as Verdict

# SQLite only counts up an INTEGER PRIMARY KEY by itself, never a BIGINT one.
Id = BigInteger().with_variant(Integer(), "sqlite")


class Utc(TypeDecorator[datetime]):
    """An aware UTC datetime, also where the database (SQLite) knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime reached the database; use an aware UTC one")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """This moment, aware, in UTC."""
    return datetime.now(UTC)


def _named(enum: type[StrEnum]) -> Enum:
    """Stored as its short text value, without a database type that every new member would have to alter."""
    return Enum(enum, native_enum=False, length=24, values_callable=lambda e: [m.value for m in e])


def _where(condition: str) -> dict[str, Any]:
    """An index on the rows that meet ``condition`` only."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Base(DeclarativeBase):
    """All tables hang on this one, with constraint names that migrations can rely on."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON, int: Integer, str: String}


class AnalysisState(StrEnum):
    """Where an instance stands on its way from the door to a verdict."""

    QUEUED = "queued"  # stored and committed; waits for a worker
    CLAIMED = "claimed"  # a worker holds it until its lease runs out
    DONE = "done"  # frames assessed, verdict recorded: terminal
    QUARANTINED = "quarantined"  # given up, with a reason and a cure; terminal until re-queued by a person


class Condition(StrEnum):
    """What the last look at an instance's bytes found."""

    OK = "ok"  # read whole, with the digest they arrived with
    DAMAGED = "damaged"  # there, and not what was stored
    MISSING = "missing"  # not there, though nobody released them


class BackfillState(StrEnum):
    """Where a study of a backfill stands."""

    FOUND = "found"  # the PACS has it; not looked at yet, or not finished
    DONE = "done"  # everything that the PACS lists of it is here
    FAILED = "failed"  # something of it did not come; the next run tries again


class Decision(StrEnum):
    """What a reviewer said; append-only, the newest one that is not withdrawn outranks the verdict."""

    CONFIRM = "confirm"
    OVERRIDE = "override"
    RETAKE = "retake"
    WITHDRAW = "withdraw"  # undo of the reviewer's last decision


class Reading(StrEnum):
    """What a reader of a double read answers: does the study show everything that is required?"""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CANNOT_TELL = "cannot_tell"


class DoubleReadState(StrEnum):
    """How far a study of the double-read sample has come."""

    WAITING = "waiting"  # for the answers of two readers who do not know of each other
    DISAGREED = "disagreed"  # for a third person's word
    DONE = "done"


class DeliveryKind(StrEnum):
    """What goes out."""

    REPORT = "sr"  # a structured report of the verdict, to a DICOM node
    SEGMENTATION = "seg"  # the masks, to a DICOM node
    REJECTION = "rejection"  # a key object "Rejected for Quality Reasons", after a person asked for a retake
    WEBHOOK = "webhook"
    MAIL = "mail"


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    WAITING = "waiting"  # for its turn or, after a refusal, for its next try; it is never given up by itself
    DELIVERED = "delivered"
    OVERTAKEN = "overtaken"  # a newer verdict or a withdrawn decision made it pointless
    CANCELLED = "cancelled"  # by a person


class Role(StrEnum):
    """What an account may do; each role includes the ones above it, save the auditor's."""

    VIEWER = "viewer"
    SONOGRAPHER = "sonographer"
    REVIEWER = "reviewer"
    ADMIN = "admin"
    AUDITOR = "auditor"  # reads everything and the audit trail, changes nothing


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
    verdict: Mapped[Verdict | None] = mapped_column(_named(Verdict))  # of the newest study-level row in `verdicts`
    decision: Mapped[Decision | None] = mapped_column(_named(Decision))  # of the newest standing review
    version: Mapped[int] = mapped_column(default=1)  # grows with every change a reviewer should know of
    changed_at: Mapped[datetime] = mapped_column(default=now, onupdate=now, index=True)  # what the live worklist asks
    # 0 flagged, 1 uncertain, 2 not judged yet, 3 nothing to do, 4 decided by a person: the worklist's first sort key,
    # computed by the database so that no writer of `verdict` or `decision` can forget it.
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
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
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

    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)


class ObjectCheck(Base):
    """The last look at an instance's bytes in the archive; no row: never looked at since they arrived."""

    __tablename__ = "object_checks"

    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), primary_key=True, autoincrement=False)
    checked_at: Mapped[datetime] = mapped_column(default=now)
    condition: Mapped[Condition] = mapped_column(_named(Condition))

    __table_args__ = (Index("ix_object_checks_ill", "condition", **_where("condition <> 'ok'")),)


class Verification(Base):
    """One pass of the scheduled verification over everything that was stored when it began."""

    __tablename__ = "verifications"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    reached: Mapped[int] = mapped_column(BigInteger, default=0)  # the last instance that was looked at
    last: Mapped[int] = mapped_column(BigInteger)  # the newest instance when it began
    checked: Mapped[int] = mapped_column(default=0)
    damaged: Mapped[int] = mapped_column(default=0)
    missing: Mapped[int] = mapped_column(default=0)


class RetentionPolicy(Base):
    """How long which bytes are kept. The one in force was activated by a person and is not retired."""

    __tablename__ = "retention_policies"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    toml: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    activated_by: Mapped[str] = mapped_column(String(64), default="")
    activated_at: Mapped[datetime | None]
    retired_at: Mapped[datetime | None]


class LegalHold(Base):
    """A study whose bytes no policy may release until the hold is lifted."""

    __tablename__ = "legal_holds"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    reason: Mapped[str] = mapped_column(Text)
    placed_by: Mapped[str] = mapped_column(String(64))
    placed_at: Mapped[datetime] = mapped_column(default=now)
    lifted_by: Mapped[str] = mapped_column(String(64), default="")
    lifted_at: Mapped[datetime | None]


class Release(Base):
    """A tombstone: a policy gave this instance's bytes up. Its rows, verdicts, findings and masks stay."""

    __tablename__ = "releases"

    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), primary_key=True, autoincrement=False)
    policy_id: Mapped[int] = mapped_column(ForeignKey("retention_policies.id"), index=True)
    rule: Mapped[str] = mapped_column(String(128))
    released_at: Mapped[datetime] = mapped_column(default=now)
    deleted_at: Mapped[datetime | None]  # when the bytes were gone from the archive

    __table_args__ = (Index("ix_releases_undone", "instance_id", **_where("deleted_at IS NULL")),)


class Analysis(Base):
    """The queue's truth: one row per instance and run of the network. The broker only rings the bell."""

    __tablename__ = "analyses"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), index=True)
    state: Mapped[AnalysisState] = mapped_column(_named(AnalysisState), default=AnalysisState.QUEUED)
    priority: Mapped[int] = mapped_column(default=0)  # the smaller the sooner
    superseded: Mapped[bool] = mapped_column(default=False)  # the instance was queued again, in a newer row
    attempts: Mapped[int] = mapped_column(default=0)  # counted before the work, so that a killer cannot loop
    token: Mapped[str | None] = mapped_column(String(32))  # fences off a worker whose lease ran out
    lease_expires_at: Mapped[datetime | None]
    queued_at: Mapped[datetime] = mapped_column(default=now)
    claimed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None] = mapped_column(index=True)
    reason: Mapped[str] = mapped_column(Text, default="")  # why the last attempt failed, without patient data
    cure: Mapped[str] = mapped_column(Text, default="")
    network: Mapped[str] = mapped_column(String(96), default="")  # name@sha256[:12]
    thresholds: Mapped[str] = mapped_column(String(16), default="")  # digest of the thresholds and calibration
    bands: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {kind: [absent, present]} from the network's card
    code_version: Mapped[str] = mapped_column(String(32), default="")
    provider: Mapped[str] = mapped_column(String(32), default="")
    milliseconds: Mapped[dict[str, Any]] = mapped_column(default=dict)  # by step

    instance: Mapped[Instance] = relationship(back_populates="analyses")
    frames: Mapped[list["Frame"]] = relationship(back_populates="analysis", order_by="Frame.number")

    __table_args__ = (
        # Partial, so that a claim is one short index scan whatever the planner knows of the table.
        Index("ix_analyses_queue", "priority", "id", **_where("state = 'queued'")),
        Index("ix_analyses_lease", "lease_expires_at", **_where("state = 'claimed'")),
    )


class Frame(Base):
    """One assessed frame."""

    __tablename__ = "frames"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    analysis_id: Mapped[int] = mapped_column(ForeignKey("analyses.id"), index=True)
    number: Mapped[int]  # counted from 1, as DICOM does
    rows: Mapped[int]
    columns: Mapped[int]
    scores: Mapped[dict[str, Any]]  # presence probability in [0, 1] of every kind the network knows
    text_read: Mapped[bool] = mapped_column(default=False, server_default=false())  # its text was looked for and read
    mask_key: Mapped[str] = mapped_column(String(256), default="")  # typed mask as PNG, in the archive

    analysis: Mapped[Analysis] = relationship(back_populates="frames")
    annotations: Mapped[list["Annotation"]] = relationship(back_populates="frame")

    __table_args__ = (UniqueConstraint("analysis_id", "number"),)


class Annotation(Base):
    """One mark found on a frame. Coordinates are pixels of the frame, origin at the upper left."""

    __tablename__ = "annotations"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    frame_id: Mapped[int] = mapped_column(ForeignKey("frames.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    score: Mapped[float]
    x: Mapped[int]
    y: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    pixels: Mapped[int]
    source: Mapped[str] = mapped_column(String(32), default="network")  # or: overlay
    text: Mapped[str] = mapped_column(Text, default="", server_default="")  # what was read there, a line a line
    text_score: Mapped[float | None]  # confidence in [0, 1] of what was read; None: nobody read

    frame: Mapped[Frame] = relationship(back_populates="annotations")


class Remark(Base):
    """What another object of the study says of an image: a presentation state's graphics, a report's measurements."""

    __tablename__ = "remarks"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), index=True)  # the object that says it
    sop_instance_uid: Mapped[str] = mapped_column(String(64), index=True)  # the image it speaks of
    frame: Mapped[int | None]  # counted from 1; None: the whole image
    source: Mapped[str] = mapped_column(String(32))  # presentation_state, sr
    kind: Mapped[str] = mapped_column(String(32))
    x: Mapped[int | None]
    y: Mapped[int | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    text: Mapped[str] = mapped_column(Text, default="")
    value: Mapped[float | None]
    unit: Mapped[str] = mapped_column(String(64), default="")


class VerdictRecord(Base):
    """One evaluation of an instance or (``instance_id`` null) of a study; the standing one is not superseded."""

    __tablename__ = "verdicts"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    instance_id: Mapped[int | None] = mapped_column(ForeignKey("instances.id"), index=True)
    verdict: Mapped[Verdict] = mapped_column(_named(Verdict))
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
    )


class Finding(Base):
    """One requirement met, missing or uncertain, with the evidence."""

    __tablename__ = "findings"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdicts.id"), index=True)
    requirement: Mapped[str] = mapped_column(String(96), index=True)
    state: Mapped[FindingState] = mapped_column(_named(FindingState))
    severity: Mapped[Severity] = mapped_column(_named(Severity))
    sentence: Mapped[str] = mapped_column(Text)  # what is missing, where, by which rule, what to do
    evidence: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {"frames": [{sop_instance_uid, frame, score}], …}

    verdict_record: Mapped[VerdictRecord] = relationship(back_populates="findings")


class Review(Base):
    """A person's decision. Append-only."""

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    verdict_id: Mapped[int | None] = mapped_column(ForeignKey("verdicts.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    decision: Mapped[Decision] = mapped_column(_named(Decision))
    reason: Mapped[str] = mapped_column(String(64), default="")
    note: Mapped[str] = mapped_column(Text, default="")
    study_version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)

    user: Mapped["User"] = relationship()


class Delivery(Base):
    """The outbox: one thing for one receiver, written in the transaction that decided it, tried until it is there."""

    __tablename__ = "deliveries"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdicts.id"))
    review_id: Mapped[int | None] = mapped_column(ForeignKey("reviews.id"))
    kind: Mapped[DeliveryKind] = mapped_column(_named(DeliveryKind))
    target: Mapped[str] = mapped_column(String(256))  # AET@HOST:PORT, URL or address
    state: Mapped[DeliveryState] = mapped_column(_named(DeliveryState), default=DeliveryState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(default=now)  # also the lease of whoever is at it
    objects: Mapped[list[Any]] = mapped_column(default=list)  # archive keys: a repeat sends the very same
    reason: Mapped[str] = mapped_column(Text, default="")  # why the last try failed, without patient data
    cure: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]

    study: Mapped[Study] = relationship()

    __table_args__ = (Index("ix_deliveries_due", "next_at", "id", **_where("state = 'waiting'")),)


class DoubleRead(Base):
    """A study drawn for a second, blinded reading: two answers and, where they differ, a third person's.

    The first answer may be an ordinary review; the second reader sees neither verdict, marks nor decision.
    """

    __tablename__ = "double_reads"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, autoincrement=False)
    state: Mapped[DoubleReadState] = mapped_column(_named(DoubleReadState), default=DoubleReadState.WAITING, index=True)
    drawn_at: Mapped[datetime] = mapped_column(default=now)
    verdict: Mapped[Verdict | None] = mapped_column(_named(Verdict))  # that stood at the first answer
    first_user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    first_answer: Mapped[Reading | None] = mapped_column(_named(Reading))
    first_blinded: Mapped[bool] = mapped_column(default=False)
    first_note: Mapped[str] = mapped_column(Text, default="")
    first_at: Mapped[datetime | None]
    second_user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    second_answer: Mapped[Reading | None] = mapped_column(_named(Reading))
    second_note: Mapped[str] = mapped_column(Text, default="")
    second_at: Mapped[datetime | None] = mapped_column(index=True)
    adjudicator_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    adjudicated_answer: Mapped[Reading | None] = mapped_column(_named(Reading))
    adjudicated_note: Mapped[str] = mapped_column(Text, default="")
    adjudicated_at: Mapped[datetime | None]

    study: Mapped[Study] = relationship()


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(256), default="")  # empty: token or one-time link only
    role: Mapped[Role] = mapped_column(_named(Role), default=Role.VIEWER)
    failed_sign_ins: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    site: Mapped[str] = mapped_column(String(128), default="")  # sees only this institution's studies; empty: all
    totp_secret: Mapped[str] = mapped_column(String(64), default="")  # sealed by the dashboard; empty: no second factor
    totp_step: Mapped[int | None] = mapped_column(BigInteger)  # of the last code that was taken; each works once
    sso_subject: Mapped[str | None] = mapped_column(String(64))  # digest of issuer and subject; null: a local account
    preferences: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)

    __table_args__ = (Index("uq_users_sso_subject", "sso_subject", unique=True),)


class Credential(Base):
    """A secret a client may show: browser session, API token or one-time sign-in. Only its SHA-256 is kept."""

    __tablename__ = "credentials"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    purpose: Mapped[str] = mapped_column(String(16))  # session | token | one_time | second_factor | recovery
    secret_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    label: Mapped[str] = mapped_column(String(64), default="")
    scope: Mapped[str] = mapped_column(String(64), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    user: Mapped[User] = relationship()


class Hold(Base):
    """A study that a reviewer has taken in hand, so that two people do not collide. It lapses by itself."""

    __tablename__ = "holds"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    since: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]

    user: Mapped[User] = relationship()


class Draft(Base):
    """A note that is not sent yet: bound to its study and its writer, so that nothing typed is ever lost."""

    __tablename__ = "drafts"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    note: Mapped[str] = mapped_column(Text)
    saved_at: Mapped[datetime] = mapped_column(default=now)


class Correction(Base):
    """A person's word on the marks of a frame: one that the network missed, or one that is none. Append-only."""

    __tablename__ = "corrections"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), index=True)
    frame: Mapped[int]  # counted from 1
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    annotation_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))  # set: this mark is none
    kind: Mapped[str] = mapped_column(String(32))
    x: Mapped[int]
    y: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
    withdrawn_at: Mapped[datetime | None]

    user: Mapped[User] = relationship()
    instance: Mapped[Instance] = relationship()


class AuditEvent(Base):
    """Who saw or changed what. Append-only; each row carries the hash of the one before it."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now, index=True)
    actor: Mapped[str] = mapped_column(String(64), index=True)
    action: Mapped[str] = mapped_column(String(48), index=True)
    subject: Mapped[str] = mapped_column(String(128), default="", index=True)  # a UID or id, never a name
    address: Mapped[str] = mapped_column(String(64), default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)
    previous_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64), unique=True)


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
    reached: Mapped[int] = mapped_column(BigInteger, default=0)  # the last study that was looked at
    total: Mapped[int] = mapped_column(default=0)  # studies in the range when it was asked for
    done: Mapped[int] = mapped_column(default=0)
    changes: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {"compliant>non_compliant": {"count", "studies"}}
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]


class Switch(Base):
    """What an administrator set while the house runs; see db/switches.py."""

    __tablename__ = "switches"

    name: Mapped[str] = mapped_column(String(24), primary_key=True)
    value: Mapped[dict[str, Any]] = mapped_column(default=dict)
    set_by: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(String(255), default="")
    since: Mapped[datetime] = mapped_column(default=now)


class SelfTest(Base):
    """One synthetic study sent through the whole house, and how long each step took."""

    __tablename__ = "self_tests"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    asked_by: Mapped[str] = mapped_column(String(64))
    begun_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    study_instance_uid: Mapped[str] = mapped_column(String(64))
    steps: Mapped[list[Any]] = mapped_column(default=list)  # [{"name", "seconds", "ok", "told", "cure"}, …] in order


class Backfill(Base):
    """Old studies of a PACS, fetched day by day. A run that is cut off goes on where the last commit ended."""

    __tablename__ = "backfills"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    node: Mapped[str] = mapped_column(String(256))  # AET@HOST:PORT
    first_day: Mapped[date]
    last_day: Mapped[date]  # included
    modality: Mapped[str] = mapped_column(String(16), default="")  # empty: all
    listed_to: Mapped[date | None]  # the last day whose studies are in `backfill_studies`
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]

    studies: Mapped[list["BackfillStudy"]] = relationship(back_populates="backfill")


class BackfillStudy(Base):
    """One study that the PACS listed for a backfill."""

    __tablename__ = "backfill_studies"

    backfill_id: Mapped[int] = mapped_column(ForeignKey("backfills.id"), primary_key=True, autoincrement=False)
    study_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    day: Mapped[date]
    state: Mapped[BackfillState] = mapped_column(_named(BackfillState), default=BackfillState.FOUND)
    instances: Mapped[int] = mapped_column(default=0)  # that the PACS lists
    fetched: Mapped[int] = mapped_column(default=0)  # that this backfill brought
    reason: Mapped[str] = mapped_column(Text, default="")  # why it is not done, without patient data
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    backfill: Mapped[Backfill] = relationship(back_populates="studies")


class Heartbeat(Base):
    """When each running role last said that it is alive."""

    __tablename__ = "heartbeats"

    role: Mapped[str] = mapped_column(String(24), primary_key=True)
    process: Mapped[str] = mapped_column(String(96), primary_key=True)  # host:pid
    at: Mapped[datetime] = mapped_column(default=now)
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


class SchemaWindow(Base):
    """Revisions whose code may run against this schema: its own, and older ones that it only added to."""

    __tablename__ = "schema_window"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)


class Peer(Base):
    """A DICOM node that an administrator entered: it may send, and it can be asked for an echo. Never deleted."""

    __tablename__ = "peers"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    ae_title: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64), default="")  # IP address or network/bits; empty: any
    port: Mapped[int | None]  # where it answers C-ECHO; null: it is not asked
    description: Mapped[str] = mapped_column(String(128), default="")
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    disabled_at: Mapped[datetime | None]
    echoed_at: Mapped[datetime | None]
    echo: Mapped[str] = mapped_column(String(255), default="")  # what came of the last one; empty: success
    echo_ms: Mapped[int | None]

    __table_args__ = (UniqueConstraint("ae_title", "address"),)


class CommitmentState(StrEnum):
    """Where a peer's request for storage commitment stands."""

    WAITING = "waiting"  # its report has not reached the peer yet
    REPORTED = "reported"  # the peer has answered the report
    GIVEN_UP = "given_up"  # the peer was away for too long


class Commitment(Base):
    """A request for storage commitment (PS3.4 annex J), kept until its report has reached the peer."""

    __tablename__ = "commitments"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(String(64))
    ae_title: Mapped[str] = mapped_column(String(16))  # of the peer that asked
    address: Mapped[str] = mapped_column(String(64))
    requested: Mapped[list[Any]] = mapped_column(default=list)  # [SOP Class UID, SOP Instance UID] each
    state: Mapped[CommitmentState] = mapped_column(_named(CommitmentState), default=CommitmentState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    due_at: Mapped[datetime] = mapped_column(default=now)  # of the next attempt
    reported_at: Mapped[datetime | None]
    committed: Mapped[int] = mapped_column(default=0)  # of the last report
    failed: Mapped[int] = mapped_column(default=0)
    last_failure: Mapped[str] = mapped_column(Text, default="")  # why the last attempt did not reach the peer

    __table_args__ = (
        UniqueConstraint("ae_title", "transaction_uid"),
        Index("ix_commitments_due", "due_at", **_where("state = 'waiting'")),
    )


class PeerActivity(Base):
    """What each calling AE title did last; a station that falls quiet shows here."""

    __tablename__ = "peer_activity"

    ae_title: Mapped[str] = mapped_column(String(16), primary_key=True)
    address: Mapped[str] = mapped_column(String(64), primary_key=True)
    first_seen_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime] = mapped_column(default=now)
    stored: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    last_refusal: Mapped[str] = mapped_column(Text, default="")
