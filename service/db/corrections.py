"""What people say about the marks of a frame. Append-only: what is taken back is stamped, never removed.

A row with an ``annotation_id`` says that this mark of the network is none; a row without one is a mark that a person
drew. Correcting a mark is both at once.
"""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, joinedload

from service.db import double_reads, studies
from service.db.tables import Annotation, Correction, Instance, Study, User, now
from service.errors import Conflict, NotFound

LEAST_SIDE = 2  # pixels; less is a slip of the hand


class Box(NamedTuple):
    """Pixels of the frame, origin at the upper left."""

    x: int
    y: int
    width: int
    height: int


class OutsideOfTheFrame(Conflict):
    """The box does not lie in the frame."""


def draw(session: Session, instance: Instance, frame: int, user: User, kind: str, box: Box) -> Correction:
    """A mark that the network missed. Raises NotFound and OutsideOfTheFrame."""
    if not 1 <= frame <= instance.number_of_frames:
        raise NotFound(f"This instance's last frame is {instance.number_of_frames}; there is no frame {frame}.")
    kept = _within(box, instance)
    drawn = Correction(
        instance_id=instance.id,
        frame=frame,
        user_id=user.id,
        user=user,
        kind=kind,
        x=kept.x,
        y=kept.y,
        width=kept.width,
        height=kept.height,
    )
    return _added(session, drawn)


def reject(session: Session, instance: Instance, frame: int, user: User, annotation_id: int) -> Correction:
    """Say that a mark of the network is none. Raises NotFound, and Conflict when somebody said so before."""
    assessed = studies.frame(instance, frame)
    mark: Annotation | None = next(
        (each for each in (assessed.annotations if assessed else []) if each.id == annotation_id), None
    )
    if mark is None:
        raise NotFound("There is no such mark on this frame.", cure="The frame was assessed anew; load the page again.")
    before = select(Correction.id).where(Correction.annotation_id == annotation_id, Correction.withdrawn_at.is_(None))
    if session.scalar(before.limit(1)) is not None:
        raise Conflict("Somebody has said so already.", cure="Load the page again.")
    rejected = Correction(
        instance_id=instance.id,
        frame=frame,
        user_id=user.id,
        user=user,
        annotation_id=mark.id,
        kind=mark.kind,
        x=mark.x,
        y=mark.y,
        width=mark.width,
        height=mark.height,
    )
    return _added(session, rejected)


def find(session: Session, correction_id: int, site: str = "", second_reader: int | None = None) -> Correction:
    """A correction that stands; not one of a study that awaits this user's blinded answer. Raises NotFound."""
    query = _standing().where(Correction.id == correction_id, *double_reads.open_to(second_reader))
    found = session.scalar(query.where(Study.institution == site) if site else query)
    if found is None:
        raise NotFound("There is no such box.", cure="It may have been taken back already; load the page again.")
    return found


def withdraw(session: Session, correction: Correction) -> None:
    """Take it back; the row stays."""
    correction.withdrawn_at = now()
    session.flush()


def of_study(session: Session, study: Study) -> list[Correction]:
    """What stands for the study's frames, oldest first."""
    return list(session.scalars(_standing().where(Instance.study_id == study.id).order_by(Correction.id)))


def page(
    session: Session, after_id: int = 0, limit: int = 200, site: str = "", second_reader: int | None = None
) -> list[Correction]:
    """What stands in the whole house, in the order in which it was said, save where a blinded answer waits."""
    query = _standing().where(Correction.id > after_id, *double_reads.open_to(second_reader))
    query = query.order_by(Correction.id).limit(limit)
    return list(session.scalars(query.where(Study.institution == site) if site else query))


def corrected_frames(session: Session) -> list[tuple[int, int]]:
    """(instance id, frame) of every frame that a person corrected, in the order of their first correction."""
    said = select(Correction.instance_id, Correction.frame).where(Correction.withdrawn_at.is_(None))
    return list(dict.fromkeys((row[0], row[1]) for row in session.execute(said.order_by(Correction.id))))


def of_instances(session: Session, instance_ids: Collection[int]) -> list[Correction]:
    """What stands for these instances, oldest first."""
    return list(session.scalars(_standing().where(Instance.id.in_(instance_ids)).order_by(Correction.id)))


def _standing() -> Select[Correction]:
    return (
        select(Correction)
        .join(Instance, Instance.id == Correction.instance_id)
        .join(Study, Study.id == Instance.study_id)
        .where(Correction.withdrawn_at.is_(None))
        .options(joinedload(Correction.user), joinedload(Correction.instance).joinedload(Instance.study))
    )


def _within(box: Box, instance: Instance) -> Box:
    """The part of the box that lies in the frame."""
    left, top = max(0, box.x), max(0, box.y)
    right, bottom = min(instance.columns, box.x + box.width), min(instance.rows, box.y + box.height)
    if right - left < LEAST_SIDE or bottom - top < LEAST_SIDE:
        raise OutsideOfTheFrame(
            f"The box is too small or lies outside of the frame of {instance.columns} × {instance.rows} pixels.",
            cure="Draw it again, on the frame.",
        )
    return Box(left, top, right - left, bottom - top)


def _added(session: Session, correction: Correction) -> Correction:
    session.add(correction)
    session.flush()
    return correction
