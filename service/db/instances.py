"""Instances on their way into the database: study, series and instance, each once, whoever else is writing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Session

from service.db.tables import Instance, Series, Study, now
from service.dicom.header import Header


@dataclass(frozen=True, slots=True)
class Arrival:
    """An instance as it came: whose bytes, how many, and where the archive keeps them."""

    header: Header
    sha256: str  # of the data set's bytes
    size: int  # bytes of the data set
    archive_key: str
    calling_ae_title: str = ""
    correlation_id: str = ""
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of an arrival."""

    instance: Instance
    created: bool  # False: the very same bytes were here before
    conflict: bool  # other bytes are stored under the same SOP Instance UID


def register(session: Session, arrival: Arrival, settle: timedelta) -> Registration:
    """Write the arrival's study, series and instance rows, or find them, inside the caller's transaction.

    The same bytes again are the same row. Other bytes under the same SOP Instance UID become a second row, and
    both, with their studies, are flagged as in conflict. A new instance makes its study unsettled once more.
    """
    header, moment = arrival.header, now()
    study = _study(session, arrival, moment)
    series = _series(session, header, study)
    created = _insert(
        session,
        Instance,
        {
            "study_id": study.id,
            "series_id": series.id,
            "sop_instance_uid": header.sop_instance_uid,
            "sop_class_uid": header.sop_class_uid,
            "transfer_syntax_uid": header.transfer_syntax_uid,
            "sha256": arrival.sha256,
            "size": arrival.size,
            "archive_key": arrival.archive_key,
            "calling_ae_title": arrival.calling_ae_title,
            "correlation_id": arrival.correlation_id,
            "header": _storable(header.facts),
            "received_at": moment,
            **_fitting(Instance, header.instance),
        },
    )
    versions = session.scalars(
        select(Instance).where(Instance.sop_instance_uid == header.sop_instance_uid).order_by(Instance.id)
    ).all()
    instance = next(version for version in versions if version.sha256 == arrival.sha256)
    if created:
        if len(versions) > 1:
            _flag_conflict(versions)
        _reopen(study, moment, settle)
    return Registration(instance, created, instance.conflict)


def find_version(session: Session, sop_instance_uid: str, sha256: str) -> Instance | None:
    """The row of exactly these bytes, if they are stored."""
    return session.scalar(
        select(Instance).where(Instance.sop_instance_uid == sop_instance_uid, Instance.sha256 == sha256)
    )


def of_uids(session: Session, sop_instance_uids: Sequence[str]) -> list[Instance]:
    """Every stored version of these SOP instances, in the order of their arrival."""
    found = select(Instance).where(Instance.sop_instance_uid.in_(sop_instance_uids)).order_by(Instance.id)
    return list(session.scalars(found))


def archive_keys(session: Session, after_id: int, limit: int) -> list[tuple[int, str]]:
    """Row ids and archive keys of instances in ascending order, a page at a time."""
    rows = session.execute(
        select(Instance.id, Instance.archive_key).where(Instance.id > after_id).order_by(Instance.id).limit(limit)
    )
    return [(row.id, row.archive_key) for row in rows]


def known_keys(session: Session, keys: list[str]) -> set[str]:
    """Those of ``keys`` that some instance's row names."""
    return set(session.scalars(select(Instance.archive_key).where(Instance.archive_key.in_(keys))))


def count_instances(session: Session) -> int:
    """How many instances are stored."""
    return session.scalar(select(func.count()).select_from(Instance)) or 0


def _study(session: Session, arrival: Arrival, moment: datetime) -> Study:
    uid = arrival.header.study_instance_uid
    fields = _fitting(Study, arrival.header.study)
    _insert(
        session,
        Study,
        {
            "study_instance_uid": uid,
            "calling_ae_title": arrival.calling_ae_title,
            "synthetic": arrival.synthetic,
            "first_received_at": moment,
            "last_received_at": moment,
            "settles_at": moment,
            "settled": False,
            "version": 0,  # counted up by the first instance
            **fields,
        },
    )
    # The lock makes instances of one study queue up, so that version and settling are never lost.
    study = session.scalars(select(Study).where(Study.study_instance_uid == uid).with_for_update()).one()
    for name, value in fields.items():  # the first instance of a study may be the one with the poorest header
        if value and not getattr(study, name):
            setattr(study, name, value)
    return study


def _series(session: Session, header: Header, study: Study) -> Series:
    uid = header.series_instance_uid
    wanted = select(Series).where(Series.study_id == study.id, Series.series_instance_uid == uid)
    series = session.scalar(wanted)
    if series is None:
        fields = _fitting(Series, header.series)
        _insert(session, Series, {"study_id": study.id, "series_instance_uid": uid, **fields})
        series = session.scalars(wanted).one()
    return series


def _reopen(study: Study, moment: datetime, settle: timedelta) -> None:
    study.last_received_at = moment
    study.settles_at = moment + settle
    study.settled = False
    study.version += 1


def _flag_conflict(versions: Any) -> None:
    for version in versions:
        if not version.conflict:
            version.conflict = True
        if not version.study.conflict:
            version.study.conflict = True
            version.study.version += 1


def _insert(session: Session, table: type[DeclarativeBase], values: dict[str, Any]) -> bool:
    """Insert unless a unique row is there already; True when this call made it."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(values).on_conflict_do_nothing().returning(table.__table__.c.id)
    return session.execute(statement).first() is not None


def _fitting(table: type[DeclarativeBase], fields: dict[str, Any]) -> dict[str, Any]:
    """Texts cut to what their columns hold; the archive keeps the full ones."""
    lengths = {name: getattr(table.__table__.c[name].type, "length", None) for name in fields}
    return {
        name: value[: lengths[name]] if isinstance(value, str) and lengths[name] else value
        for name, value in fields.items()
    }


def _storable(value: Any) -> Any:
    """JSON without lone surrogates, which PostgreSQL refuses."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_storable(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _storable(entry) for name, entry in value.items()}
    return value
