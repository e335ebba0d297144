"""What people said of a study: reviews, double reads, holds, drafts, corrections."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from service.compliance.outcome import Verdict
from service.db.tables.base import Base, Id, named, now
from service.db.tables.studies import Decision, Instance, Study

if TYPE_CHECKING:
    from service.db.tables.users import User

NOTE_LENGTH = 4000  # letters of any note


class Review(Base):
    """A person's decision. Append-only."""

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    verdict_id: Mapped[int | None] = mapped_column(ForeignKey("verdicts.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    decision: Mapped[Decision] = mapped_column(named(Decision))
    reason: Mapped[str] = mapped_column(String(64), default="")
    note: Mapped[str] = mapped_column(Text, default="")
    study_version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)

    user: Mapped["User"] = relationship()


class Reading(StrEnum):
    """What a reader of a double read answers: does the study show everything that is required?"""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    CANNOT_TELL = "cannot_tell"


class DoubleReadState(StrEnum):
    """How far a study that is read twice has come."""

    WAITING = "waiting"  # for the answers of two readers who do not know of each other
    DISAGREED = "disagreed"  # for a third person's word
    DONE = "done"


class Cause(StrEnum):
    """Why a study is read twice."""

    SAMPLE = "sample"  # drawn by its UID: DOUBLE_READ_SHARE
    OVERRIDE = "override"  # somebody overrode what the rule book lets nobody override alone


class DoubleRead(Base):
    """A study for a second, blinded reading: two answers and, where they differ, a third person's.

    The first answer may be an ordinary review; the second reader sees neither verdict, marks nor decision.
    """

    __tablename__ = "double_reads"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True, autoincrement=False)
    cause: Mapped[Cause] = mapped_column(named(Cause), default=Cause.SAMPLE, server_default=Cause.SAMPLE.value)
    state: Mapped[DoubleReadState] = mapped_column(named(DoubleReadState), default=DoubleReadState.WAITING, index=True)
    drawn_at: Mapped[datetime] = mapped_column(default=now)
    verdict: Mapped[Verdict | None] = mapped_column(named(Verdict))  # that stood at the first answer
    first_user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    first_answer: Mapped[Reading | None] = mapped_column(named(Reading))
    first_blinded: Mapped[bool] = mapped_column(default=False)
    first_note: Mapped[str] = mapped_column(Text, default="")
    first_at: Mapped[datetime | None]
    second_user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    second_answer: Mapped[Reading | None] = mapped_column(named(Reading))
    second_note: Mapped[str] = mapped_column(Text, default="")
    second_at: Mapped[datetime | None] = mapped_column(index=True)
    adjudicator_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    adjudicated_answer: Mapped[Reading | None] = mapped_column(named(Reading))
    adjudicated_note: Mapped[str] = mapped_column(Text, default="")
    adjudicated_at: Mapped[datetime | None]  # without an answer: a decision that was one of two has ended

    study: Mapped[Study] = relationship()


class Hold(Base):
    """A study that a reviewer has taken in hand, so that two people do not collide. It lapses by itself."""

    __tablename__ = "holds"

    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    since: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]

    user: Mapped["User"] = relationship()


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

    user: Mapped["User"] = relationship()
    instance: Mapped[Instance] = relationship()
