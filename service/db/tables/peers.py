"""DICOM nodes: who may send, what they did last, what was promised to them, what is fetched from them."""

from datetime import date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.tables.base import Base, Id, named, now, where


class Peer(Base):
    """A DICOM node that an administrator entered: it may send, and it can be asked for an echo. Never deleted."""

    __tablename__ = "peers"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    ae_title: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64), default="")  # IP address or network/bits; empty: any
    port: Mapped[int | None]  # where it answers C-ECHO and hears reports; null: it is not asked, and hears them on 104
    description: Mapped[str] = mapped_column(String(128), default="")
    created_by: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)
    disabled_at: Mapped[datetime | None]
    echoed_at: Mapped[datetime | None]
    echo: Mapped[str] = mapped_column(String(255), default="")  # what came of the last one; empty: success
    echo_ms: Mapped[int | None]

    # Its options, as in the settings. Plain text, no enums: a word that is none, or that newer code alone knows, must
    # not keep the receiver from reading this row and all others.
    reports: Mapped[str] = mapped_column(String(24), default="new", server_default="new")
    tls: Mapped[str] = mapped_column(String(24), default="optional", server_default="optional")
    certificate: Mapped[str] = mapped_column(String(255), default="", server_default="")
    character_set: Mapped[str] = mapped_column(String(128), default="", server_default="")
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    max_associations: Mapped[int] = mapped_column(default=0, server_default="0")

    __table_args__ = (UniqueConstraint("ae_title", "address"),)


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
    state: Mapped[CommitmentState] = mapped_column(named(CommitmentState), default=CommitmentState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    due_at: Mapped[datetime] = mapped_column(default=now)  # of the next attempt
    reported_at: Mapped[datetime | None]
    committed: Mapped[int] = mapped_column(default=0)  # of the last report
    failed: Mapped[int] = mapped_column(default=0)
    last_failure: Mapped[str] = mapped_column(Text, default="")  # why the last attempt did not reach the peer

    __table_args__ = (
        UniqueConstraint("ae_title", "transaction_uid"),
        Index("ix_commitments_due", "due_at", **where("state = 'waiting'")),
    )


class BackfillState(StrEnum):
    """Where a study of a backfill stands."""

    FOUND = "found"  # the PACS has it; not looked at yet, or not finished
    DONE = "done"  # everything that the PACS lists of it is here
    FAILED = "failed"  # something of it did not come; the next run tries again


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
    state: Mapped[BackfillState] = mapped_column(named(BackfillState), default=BackfillState.FOUND)
    instances: Mapped[int] = mapped_column(default=0)  # that the PACS lists
    fetched: Mapped[int] = mapped_column(default=0)  # that this backfill brought
    reason: Mapped[str] = mapped_column(Text, default="")  # why it is not done, without patient data
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    backfill: Mapped[Backfill] = relationship(back_populates="studies")
