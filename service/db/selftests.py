"""Self-tests: what came of them, what the house knows of their study, and its removal without a trace."""

from datetime import timedelta

from sqlalchemy import ColumnElement, Table, delete, or_, select
from sqlalchemy.orm import Session, selectinload

from service.db.tables import Analysis, Base, Frame, Instance, SelfTest, Study, now
from service.errors import NotAllowed

# Longer than all of its steps' patience together.
CUT_OFF_AFTER = timedelta(minutes=10)


def begin(session: Session, asked_by: str, study_instance_uid: str) -> SelfTest:
    """The row of a self-test that starts now."""
    test = SelfTest(asked_by=asked_by, study_instance_uid=study_instance_uid, steps=[])
    session.add(test)
    session.flush()
    return test


def get(session: Session, number: int) -> SelfTest | None:
    return session.get(SelfTest, number)


def newest(session: Session, limit: int = 10) -> list[SelfTest]:
    return list(session.scalars(select(SelfTest).order_by(SelfTest.id.desc()).limit(limit)))


def under_way(session: Session) -> list[str]:
    """Study Instance UIDs of self-tests that have begun and not ended; one that was cut off is forgotten."""
    lately = SelfTest.begun_at > now() - CUT_OFF_AFTER
    return list(session.scalars(select(SelfTest.study_instance_uid).where(SelfTest.finished_at.is_(None), lately)))


def cut_off(session: Session) -> list[str]:
    """Study Instance UIDs of self-tests that ended, or whose process did in their midst, and whose studies are there:
    nobody has removed them, or the archive did not let their bytes go."""
    over = or_(SelfTest.finished_at.is_not(None), SelfTest.begun_at <= now() - CUT_OFF_AFTER)
    left = select(SelfTest.study_instance_uid).join(Study, Study.study_instance_uid == SelfTest.study_instance_uid)
    return list(session.scalars(left.where(over)))


def seen(session: Session, study_instance_uid: str) -> tuple[Study, Instance, Analysis | None] | None:
    """What the house knows of the test's only instance by now."""
    instance = session.scalar(
        select(Instance)
        .join(Study)
        .where(Study.study_instance_uid == study_instance_uid)
        .options(selectinload(Instance.study), selectinload(Instance.analyses).selectinload(Analysis.frames))
    )
    if instance is None:
        return None
    return instance.study, instance, instance.analyses[-1] if instance.analyses else None


def objects(session: Session, study_instance_uid: str) -> list[str]:
    """Archive keys that only this synthetic study names.

    Raises NotAllowed for a study that is not synthetic: nothing else is ever deleted this way.
    """
    study = _synthetic(session, study_instance_uid)
    if study is None:
        return []
    keys = list(session.scalars(select(Instance.archive_key).where(Instance.study_id == study.id)))
    masks = select(Frame.mask_key).join(Analysis).join(Instance).where(Instance.study_id == study.id)
    keys += session.scalars(masks.where(Frame.mask_key != ""))
    elsewhere = Instance.archive_key.in_(keys), Instance.study_id != study.id
    others = set(session.scalars(select(Instance.archive_key).where(*elsewhere)))
    return [key for key in keys if key not in others]


def remove(session: Session, study_instance_uid: str) -> list[str]:
    """Delete a synthetic study's rows; returns the archive keys that nothing names any more. Raises as `objects`."""
    study = _synthetic(session, study_instance_uid)
    if study is None:
        return []
    keys = objects(session, study_instance_uid)
    for table, condition in reversed(_hanging_on(study.id).items()):
        session.execute(delete(table).where(condition))
    return keys


def _synthetic(session: Session, study_instance_uid: str) -> Study | None:
    study = session.scalar(select(Study).where(Study.study_instance_uid == study_instance_uid))
    if study is not None and not study.synthetic:
        raise NotAllowed("This study is not a self-test's; it is kept.", cure="Only what a self-test sent is removed.")
    return study


def _hanging_on(study_id: int) -> dict[Table, ColumnElement[bool]]:
    """Every table with rows that belong to the study, by its foreign keys, owners before what they own.

    Read from the schema itself, so that a table that is added later is not forgotten.
    """
    studies = Base.metadata.tables["studies"]
    found: dict[Table, ColumnElement[bool]] = {studies: studies.c.id == study_id}
    for table in Base.metadata.sorted_tables:
        owned = [
            key.parent.in_(select(key.column).where(found[key.column.table]))
            for key in table.foreign_keys
            if key.column.table in found
        ]
        if owned:
            found[table] = or_(*owned)
    return found
