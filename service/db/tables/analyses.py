"""The queue and what an analysis saw: frames, annotations, and what other objects say of an image."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DDL, ForeignKey, Index, String, Text, UniqueConstraint, event, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.tables.base import Base, Id, named, now, where
from service.db.tables.studies import Instance


class AnalysisState(StrEnum):
    """Where an instance stands on its way from the door to a verdict."""

    QUEUED = "queued"  # stored and committed; waits for a worker
    CLAIMED = "claimed"  # a worker holds it until its lease runs out
    DONE = "done"  # frames assessed, verdict recorded: terminal
    QUARANTINED = "quarantined"  # given up, with a reason and a cure; terminal until re-queued by a person


class Analysis(Base):
    """The queue's truth: one row per instance and run of the network. The broker only rings the bell."""

    __tablename__ = "analyses"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), index=True)
    state: Mapped[AnalysisState] = mapped_column(named(AnalysisState), default=AnalysisState.QUEUED)
    priority: Mapped[int] = mapped_column(default=0)  # the smaller the sooner
    superseded: Mapped[bool] = mapped_column(default=False)  # the instance was queued again, in a newer row
    attempts: Mapped[int] = mapped_column(default=0)  # counted before the work, so that a killer cannot loop
    token: Mapped[str | None] = mapped_column(String(32))  # fences off a worker whose lease ran out
    lease_expires_at: Mapped[datetime | None]
    queued_at: Mapped[datetime] = mapped_column(default=now)
    claimed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
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
        Index("ix_analyses_queue", "priority", "id", **where("state = 'queued'")),
        Index("ix_analyses_lease", "lease_expires_at", **where("state = 'claimed'")),
        Index("ix_analyses_quarantine", "id", **where("state = 'quarantined'")),
        Index("ix_analyses_finished", "finished_at", **where("finished_at IS NOT NULL")),
    )


# An analysis leaves two dead versions of its row behind, and an index entry of one where the next claim begins to look.
# By itself PostgreSQL waits until there are as many as a fifth of all analyses ever made, and then spares the indexes
# if few pages are concerned: claims in a large archive would look past hundreds of pages in which nobody waits now.
_VACUUMED = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, vacuum_index_cleanup = on"
event.listen(
    Analysis.__table__,
    "after_create",
    DDL(f"ALTER TABLE analyses SET ({_VACUUMED})").execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]
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
