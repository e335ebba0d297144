"""What goes out."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.tables.base import Base, Id, named, now, where
from service.db.tables.studies import Study


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


class Delivery(Base):
    """The outbox: one thing for one receiver, written in the transaction that decided it, tried until it is there."""

    __tablename__ = "deliveries"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdicts.id"))
    review_id: Mapped[int | None] = mapped_column(ForeignKey("reviews.id"))
    kind: Mapped[DeliveryKind] = mapped_column(named(DeliveryKind))
    target: Mapped[str] = mapped_column(String(256))  # AET@HOST:PORT, URL or address
    state: Mapped[DeliveryState] = mapped_column(named(DeliveryState), default=DeliveryState.WAITING)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime] = mapped_column(default=now)  # also the lease of whoever is at it
    objects: Mapped[list[Any]] = mapped_column(default=list)  # archive keys: a repeat sends the very same
    reason: Mapped[str] = mapped_column(Text, default="")  # why the last try failed, without patient data
    cure: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]

    study: Mapped[Study] = relationship()

    __table_args__ = (Index("ix_deliveries_due", "next_at", "id", **where("state = 'waiting'")),)
