"""Who may do what, and who did: accounts, their secrets, the audit trail."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.db.tables.base import Base, Id, named, now


class Role(StrEnum):
    """What an account may do; each role includes the ones above it, save the auditor's."""

    VIEWER = "viewer"
    SONOGRAPHER = "sonographer"
    REVIEWER = "reviewer"
    ADMIN = "admin"
    AUDITOR = "auditor"  # reads what a viewer does, reports, legal holds and the audit trail; changes nothing


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(String(256), default="")  # empty: token or one-time link only
    role: Mapped[Role] = mapped_column(named(Role), default=Role.VIEWER)
    failed_sign_ins: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    site: Mapped[str] = mapped_column(String(128), default="")  # sees only this institution's studies; empty: all
    operator_name: Mapped[str | None] = mapped_column(String(324))  # scans under it, as an administrator says
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
