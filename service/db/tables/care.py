"""The care of stored bytes: the last look at them, how long they are kept, what was given up."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Id, named, now, where


class Condition(StrEnum):
    """What the last look at an instance's bytes found."""

    OK = "ok"  # read whole, with the digest they arrived with
    DAMAGED = "damaged"  # there, and not what was stored
    MISSING = "missing"  # not there, though nobody released them


class ObjectCheck(Base):
    """The last look at an instance's bytes in the archive; no row: never looked at since they arrived."""

    __tablename__ = "object_checks"

    instance_id: Mapped[int] = mapped_column(ForeignKey("instances.id"), primary_key=True, autoincrement=False)
    checked_at: Mapped[datetime] = mapped_column(default=now)
    condition: Mapped[Condition] = mapped_column(named(Condition))

    __table_args__ = (Index("ix_object_checks_ill", "condition", **where("condition <> 'ok'")),)


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

    __table_args__ = (Index("ix_releases_undone", "instance_id", **where("deleted_at IS NULL")),)
