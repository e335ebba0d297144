"""The house itself: who is alive, what is switched, how the last self-test went, which code fits the schema."""

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.tables.base import Base, Id, now


class Heartbeat(Base):
    """When each running role last said that it is alive."""

    __tablename__ = "heartbeats"

    role: Mapped[str] = mapped_column(String(24), primary_key=True)
    process: Mapped[str] = mapped_column(String(96), primary_key=True)  # host:pid
    at: Mapped[datetime] = mapped_column(default=now)
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


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


class SchemaWindow(Base):
    """Revisions whose code may run against this schema: its own, and older ones that it only added to."""

    __tablename__ = "schema_window"

    revision: Mapped[str] = mapped_column(String(32), primary_key=True)
