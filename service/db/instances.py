"""Instances on their way into the database: study, series and instance, each once, whoever else is writing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Connection, Table, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.db.tables import Analysis, Instance, Series, Study, now
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

    instance_id: int
    created: bool  # False: the very same bytes were here before
    conflict: bool  # other bytes are stored under the same SOP Instance UID


# The statements of the receiver's hot path, in the tables' own terms: the mapper would cost more than the disk.
_studies, _series_, _instances, _analyses = (
    cast(Table, table.__table__) for table in (Study, Series, Instance, Analysis)
)
_FIND_STUDY = select(_studies).where(_studies.c.study_instance_uid == bindparam("uid")).with_for_update()
_FIND_SERIES = select(_series_.c.id).where(
    _series_.c.study_id == bindparam("study_id"), _series_.c.series_instance_uid == bindparam("uid")
)
_FIND_VERSIONS = select(_instances.c.id, _instances.c.sha256, _instances.c.conflict).where(
    _instances.c.sop_instance_uid == bindparam("uid")
)
_REOPEN = update(_studies).where(_studies.c.id == bindparam("study_id"))
_QUEUE = insert(_analyses).returning(_analyses.c.id)


def register(session: Session, arrival: Arrival, settle: timedelta) -> Registration:
    """Write the arrival's study, series and instance rows, or find them, inside the caller's transaction.

    The same bytes again are the same row. Other bytes under the same SOP Instance UID become a second row, and
    both, with their studies, are flagged as in conflict. A new instance makes its study unsettled once more.
    """
    header, moment = arrival.header, now()
    rows = session.connection()
    study = _study(rows, arrival, moment)
    others = rows.execute(_FIND_VERSIONS, {"uid": header.sop_instance_uid}).all()
    for other in others:
        if other.sha256 == arrival.sha256:
            return Registration(other.id, created=False, conflict=other.conflict)
    instance_id = _insert(
        rows,
        _instances,
        {
            "study_id": study["id"],
            "series_id": _series(rows, header, study["id"]),
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
            "conflict": bool(others),
            **_fitting(_instances, header.instance),
        },
    )
    if instance_id is None:  # another receiver stored the same bytes between the two statements
        return register(session, arrival, settle)
    rows.execute(
        _REOPEN,
        {
            "study_id": study["id"],
            "last_received_at": moment,
            "settles_at": moment if arrival.synthetic else moment + settle,
            "settled": False,
            "version": study["version"] + 1,
            "changed_at": moment,
            **study["improved"],
        },
    )
    if others:
        _flag_conflict(rows, header.sop_instance_uid, moment)
    return Registration(instance_id, created=True, conflict=bool(others))


def first_analysis(session: Session, instance_id: int) -> int:
    """Queue an instance that was made in this transaction; the id of its analysis."""
    return int(session.connection().execute(_QUEUE, {"instance_id": instance_id}).scalar_one())


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


def correlation_ids(session: Session, study_id: int) -> list[str]:
    """Those of the associations by which a study came, each once."""
    return sorted(set(session.scalars(select(Instance.correlation_id).where(Instance.study_id == study_id))))


def known_keys(session: Session, keys: list[str]) -> set[str]:
    """Those of ``keys`` that some instance's row names."""
    return set(session.scalars(select(Instance.archive_key).where(Instance.archive_key.in_(keys))))


def count_instances(session: Session) -> int:
    """How many instances are stored."""
    return session.scalar(select(func.count()).select_from(Instance)) or 0


def _study(rows: Connection, arrival: Arrival, moment: datetime) -> dict[str, Any]:
    """The study's id, version, and the fields that it lacked and this arrival knows."""
    uid = arrival.header.study_instance_uid
    fields = _fitting(_studies, arrival.header.study)
    # The lock makes instances of one study queue up, so that version and settling are never lost.
    found = rows.execute(_FIND_STUDY, {"uid": uid}).mappings().first()
    if found is None:
        _insert(
            rows,
            _studies,
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
        found = rows.execute(_FIND_STUDY, {"uid": uid}).mappings().one()
    # The first instance of a study may be the one with the poorest header.
    improved = {name: value for name, value in fields.items() if value and not found[name]}
    return {"id": found["id"], "version": found["version"], "improved": improved}


def _series(rows: Connection, header: Header, study_id: int) -> int:
    wanted = {"study_id": study_id, "uid": header.series_instance_uid}
    found = rows.execute(_FIND_SERIES, wanted).scalar()
    if found is None:
        fields = _fitting(_series_, header.series)
        _insert(rows, _series_, {"study_id": study_id, "series_instance_uid": wanted["uid"], **fields})
        found = rows.execute(_FIND_SERIES, wanted).scalar_one()
    return int(found)


def _flag_conflict(rows: Connection, sop_instance_uid: str, moment: datetime) -> None:
    versions = _instances.c.sop_instance_uid == sop_instance_uid
    rows.execute(update(_instances).where(versions).values(conflict=True))
    studies = select(_instances.c.study_id).where(versions)
    rows.execute(
        update(_studies)
        .where(_studies.c.id.in_(studies), ~_studies.c.conflict)
        .values(conflict=True, version=_studies.c.version + 1, changed_at=moment)
    )


def _insert(rows: Connection, table: Table, values: dict[str, Any]) -> int | None:
    """Insert unless a unique row is there already; the new row's id when this call made it."""
    found = rows.execute(_insertion(table, rows.dialect.name), values).scalar()
    return None if found is None else int(found)


@lru_cache
def _insertion(table: Table, dialect: str) -> Any:
    insertion = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insertion(table).on_conflict_do_nothing().returning(table.c.id)


def _fitting(table: Table, fields: dict[str, Any]) -> dict[str, Any]:
    """Texts cut to what their columns hold; the archive keeps the full ones."""
    lengths = {name: getattr(table.c[name].type, "length", None) for name in fields}
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
