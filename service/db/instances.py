"""Instances on their way into the database: study, series and instance, each once, whoever else is writing."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, cast

from sqlalchemy import JSON, ClauseElement, Dialect, Table, bindparam, delete, exists, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.schema import CallableColumnDefault, ScalarElementColumnDefault

from service.db.dates import Dates
from service.db.statement import Cursor, Statement
from service.db.tables import Analysis, Condition, Instance, ObjectCheck, Release, Series, Study, now
from service.dicom.header import Header

# How long after its last image a study is judged, by the calling AE title of that image.
Settle = Callable[[str], timedelta]


class Arrival(NamedTuple):
    """An instance as it came: whose bytes, how many, and where the archive keeps them."""

    header: Header
    sha256: str  # of the data set's bytes
    size: int  # bytes of the data set
    archive_key: str
    calling_ae_title: str = ""
    correlation_id: str = ""
    synthetic: bool = False
    priority: int = 0  # in the queue, the smaller the sooner


class Registration(NamedTuple):
    """What became of an arrival."""

    instance_id: int
    created: bool  # False: the very same bytes were here before
    conflict: bool  # other bytes are stored under the same SOP Instance UID
    analysis_id: int | None = None  # of the analysis that was queued with it
    wanted: bool = False  # again: its bytes were given up, or found damaged or missing


# The statements of the receiver's hot path.
_studies, _series_, _instances, _analyses, _releases, _checks = (
    cast(Table, table.__table__) for table in (Study, Series, Instance, Analysis, Release, ObjectCheck)
)
# Ids of studies that this process has lately added to: for the order of locks alone, and wrong only after a rollback.
_seen: dict[str, int] = {}
MOST_SEEN = 10_000
NEWEST = 2**63  # a study that is still to be made

# What a header says of its study.
_STUDY_FIELDS = (
    *("patient_name", "patient_id", "patient_birth_date", "patient_sex", "accession_number", "study_date"),
    *("description", "procedure", "body_part", "laterality", "institution", "station", "operator"),
)
# The lock makes instances of one study queue up, so that version and settling are never lost. It is a statement of its
# own: what waits for a lock still sees the other tables as they were before.
_LOCK_STUDY = Statement(
    select(_studies.c.id).where(_studies.c.study_instance_uid == bindparam("study_uid")).with_for_update()
)
_VERSIONS = _instances.c.sop_instance_uid == bindparam("uid")
_IN_STUDY = _series_.c.study_id == _studies.c.id
# Everything that an instance of a known study needs, in one go: two statements more were 28 of 775 µs to its answer.
_FIND = Statement(
    select(
        _studies.c.id,
        _studies.c.version,
        _studies.c.settled,
        _series_.c.id,
        _series_.c.body_part,
        exists().where(_VERSIONS),
        *(_studies.c[name] for name in _STUDY_FIELDS),
    )
    .outerjoin(_series_, _IN_STUDY & (_series_.c.series_instance_uid == bindparam("series_uid")))
    .where(_studies.c.study_instance_uid == bindparam("study_uid"))
)
_FIND_SERIES = Statement(
    select(_series_.c.id).where(
        _series_.c.study_id == bindparam("study_id"), _series_.c.series_instance_uid == bindparam("uid")
    )
)
# What images of a series that do not say it are taken to be of: the part that the first one names that names any.
_NAME_PART = Statement(
    update(_series_).where(_series_.c.id == bindparam("series_id")).values(body_part=bindparam("body_part"))
)
_FIND_VERSIONS = Statement(select(_instances.c.id, _instances.c.sha256, _instances.c.conflict).where(_VERSIONS))
_REOPEN = Statement(
    update(_studies)
    .where(_studies.c.id == bindparam("study_id"))
    .values({name: bindparam(name) for name in ("last_received_at", "settles_at", "settled", "version", "changed_at")})
)
_KEEP_AGAIN = Statement(delete(_releases).where(_releases.c.instance_id == bindparam("released")))
# Its bytes wait for their next look as if they had just arrived.
_FORGET_ILLNESS = Statement(
    delete(_checks).where(_checks.c.instance_id == bindparam("ill"), _checks.c.condition != Condition.OK)
)
# By its last image a retention policy tells a study's age.
_KEEP_STUDY_AGAIN = Statement(
    update(_studies)
    .where(_studies.c.id == bindparam("study_id"))
    .values(last_received_at=bindparam("moment"), changed_at=bindparam("changed_at"), version=_studies.c.version + 1)
)
_FLAG_INSTANCES = Statement(update(_instances).where(_VERSIONS).values(conflict=True))
# Before the instances are flagged: a study that holds one which was not in conflict until now is to be judged again.
_held = _studies.alias()
_HOLDERS = (
    select(_instances.c.study_id)
    .join(_held, _held.c.id == _instances.c.study_id)
    .where(_VERSIONS, ~_held.c.conflict | ~_instances.c.conflict)
)
_FLAG_STUDIES = Statement(
    update(_studies)
    .where(_studies.c.id.in_(_HOLDERS))
    .values(conflict=True, settled=False, version=_studies.c.version + 1, changed_at=bindparam("moment"))
)


def register(session: Session, arrival: Arrival, settle: timedelta) -> Registration:
    """`register_all` of one arrival inside a session's transaction, without queueing it."""
    rows = session.connection()
    raw = rows.connection.cursor()
    try:
        return register_all(Cursor(raw, rows.dialect), [arrival], lambda _: settle, queue=False)[0]
    finally:
        raw.close()


def register_all(
    cursor: Cursor, arrivals: Sequence[Arrival], settle: Settle, *, queue: bool = True, dates: Dates | None = None
) -> list[Registration]:
    """Write the arrivals' study, series and instance rows, or find them, inside the caller's transaction.

    The same bytes again are the same row. Other bytes under the same SOP Instance UID become a second row, and
    both, with their studies, are flagged as in conflict; a study to which that is new becomes unsettled. So does that
    of a new instance, which with ``queue`` waits for a worker. With ``dates`` that of a study which is being received
    may wait a moment.
    """
    moment = now()
    by_study: dict[str, list[int]] = {}
    for place, arrival in enumerate(arrivals):
        by_study.setdefault(arrival.header.study_instance_uid, []).append(place)
    registrations: dict[int, Registration] = {}
    # In the order in which workers, too, lock several studies, or one could wait for the other's in a circle.
    for uid in sorted(by_study, key=lambda uid: (_seen.get(uid, NEWEST), uid)):
        members = [arrivals[place] for place in by_study[uid]]
        _lock(cursor, uid)
        improved: dict[str, Any] = {}
        created = version = study_id = 0
        settled = True
        for place, arrival in zip(by_study[uid], members, strict=True):
            found = _find(cursor, arrival, moment)
            study_id, version, settled = found.study_id, version or found.version, found.settled
            _note_seen(uid, study_id)
            _improve(improved, found.study, arrival.header)
            registrations[place] = _register(cursor, arrival, found, moment, queue)
            created += registrations[place].created
        if created:
            patience = max(_patience(arrival, settle) for arrival in members)
            if dates and version and not settled and dates.may_wait(study_id, moment, patience) and not improved:
                continue
            values = {
                "study_id": study_id,
                "last_received_at": moment,
                "settles_at": moment + patience,
                "settled": False,
                "version": version + created,
                "changed_at": moment,
            }
            cursor.run(_REOPEN, values)
            if improved:
                better = {**_fitting(_studies, improved), "changed_at": moment}
                cursor.run(_improvement(tuple(better)), {"study_id": study_id, **better})
    return [registrations[place] for place in range(len(arrivals))]


def _patience(arrival: Arrival, settle: Settle) -> timedelta:
    """A self-test waits for nothing."""
    return timedelta() if arrival.synthetic else settle(arrival.calling_ae_title)


def first_analysis(session: Session, instance_id: int) -> int:
    """Queue an instance that was made in this transaction; the id of its analysis."""
    queued = insert(_analyses).returning(_analyses.c.id)
    return int(session.connection().execute(queued, {"instance_id": instance_id}).scalar_one())


def of_uids(session: Session, sop_instance_uids: Sequence[str]) -> list[Instance]:
    """Every stored version of these SOP instances, in the order of their arrival."""
    found = select(Instance).where(Instance.sop_instance_uid.in_(sop_instance_uids)).order_by(Instance.id)
    return list(session.scalars(found))


def correlation_ids(session: Session, study_id: int) -> list[str]:
    """Those of the associations by which a study came, each once."""
    return sorted(set(session.scalars(select(Instance.correlation_id).where(Instance.study_id == study_id))))


def known_keys(session: Session, keys: list[str]) -> set[str]:
    """Those of ``keys`` that some instance's row names."""
    return set(session.scalars(select(Instance.archive_key).where(Instance.archive_key.in_(keys))))


class _Found(NamedTuple):
    """What stands in the database when an instance comes."""

    study_id: int
    version: int
    settled: bool
    series_id: int | None
    body_part: str | None  # the series'
    known: int  # whether its SOP Instance UID is there, with whatever bytes
    study: list[Any]  # the study's _STUDY_FIELDS


def _note_seen(uid: str, study_id: int) -> None:
    if len(_seen) > MOST_SEEN:
        _seen.clear()
    _seen[uid] = study_id


def _lock(cursor: Cursor, study_instance_uid: str) -> None:
    """Nobody else writes to the study until the transaction ends; SQLite lets nobody else write at all."""
    if cursor.dialect.name != "sqlite":
        cursor.run(_LOCK_STUDY, {"study_uid": study_instance_uid})


def _find(cursor: Cursor, arrival: Arrival, moment: datetime) -> _Found:
    """The study of an arrival, made if it is not there, and what it holds."""
    header = arrival.header
    wanted = {
        "study_uid": header.study_instance_uid,
        "series_uid": header.series_instance_uid,
        "uid": header.sop_instance_uid,
    }
    found = cursor.one(_FIND, wanted)
    if found is None:
        values = {
            "study_instance_uid": header.study_instance_uid,
            "calling_ae_title": arrival.calling_ae_title,
            "synthetic": arrival.synthetic,
            "first_received_at": moment,
            "last_received_at": moment,
            "settles_at": moment,
            "version": 0,  # counted up by the first instance
            **_fitting(_studies, header.study),
        }
        _insert(cursor, _studies, values)
        _lock(cursor, header.study_instance_uid)
        found = cursor.one(_FIND, wanted)
    study_id, version, settled, series_id, body_part, known, *study = found
    return _Found(study_id, version, settled, series_id, body_part, known, study)


def _improve(improved: dict[str, Any], study: list[Any], header: Header) -> None:
    """Add what the study lacks and this header says: its first instance may be the one with the poorest header."""
    if all(study):
        return
    for name, value in zip(_STUDY_FIELDS, study, strict=True):
        if not value and name not in improved and (said := header.study.get(name)):
            improved[name] = said


def _register(cursor: Cursor, arrival: Arrival, found: _Found, moment: datetime, queue: bool) -> Registration:
    header = arrival.header
    others = cursor.all(_FIND_VERSIONS, {"uid": header.sop_instance_uid}) if found.known else []
    for identity, sha256, conflict in others:
        if sha256 == arrival.sha256:
            # Given up by a retention policy and here again: its bytes are wanted once more.
            released = cursor.changed(_KEEP_AGAIN, {"released": identity})
            if released:
                cursor.run(_KEEP_STUDY_AGAIN, {"study_id": found.study_id, "moment": moment, "changed_at": moment})
            ill = cursor.changed(_FORGET_ILLNESS, {"ill": identity})
            return Registration(identity, created=False, conflict=bool(conflict), wanted=bool(released or ill))
    series_id = found.series_id or _series(cursor, header, found.study_id)
    values = {
        "study_id": found.study_id,
        "series_id": series_id,
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
    }
    instance_id = _insert(cursor, _instances, values)
    if instance_id is None:  # another receiver stored the same bytes between the two statements
        return _register(cursor, arrival, found._replace(known=True), moment, queue)
    if found.series_id and not found.body_part and (part := header.series.get("body_part")):
        cursor.run(_NAME_PART, {"series_id": series_id, **_fitting(_series_, {"body_part": part})})
    if others:
        cursor.run(_FLAG_STUDIES, {"uid": header.sop_instance_uid, "moment": moment})
        cursor.run(_FLAG_INSTANCES, {"uid": header.sop_instance_uid})
    queued = {"instance_id": instance_id, "priority": arrival.priority, "queued_at": moment}
    analysis_id = _insert(cursor, _analyses, queued) if queue else None
    return Registration(instance_id, created=True, conflict=bool(others), analysis_id=analysis_id)


def _series(cursor: Cursor, header: Header, study_id: int) -> int:
    wanted = {"study_id": study_id, "uid": header.series_instance_uid}
    found = cursor.one(_FIND_SERIES, wanted)
    if found is None:
        fields = _fitting(_series_, header.series)
        _insert(cursor, _series_, {"study_id": study_id, "series_instance_uid": wanted["uid"], **fields})
        found = cursor.one(_FIND_SERIES, wanted)
    return int(found[0])


def _insert(cursor: Cursor, table: Table, values: dict[str, Any]) -> int | None:
    """Insert unless a unique row is there already; the new row's id when this call made it. Completes ``values``."""
    for name, make in _made(table):
        if name not in values:
            values[name] = make(None)
    return cursor.inserted(_insertion(table, tuple(values)), values)


@lru_cache
def _made(table: Table) -> list[tuple[str, Any]]:
    """Columns whose default is made anew for each row, and what makes it."""
    return [
        (column.name, column.default.arg)
        for column in table.c
        if isinstance(column.default, CallableColumnDefault) and not isinstance(column.type, JSON)
    ]


@lru_cache
def _constants(table: Table) -> dict[str, Any]:
    """Defaults that every row gets alike. An empty JSON is one, though its maker is called for each row elsewhere."""
    constants: dict[str, Any] = {}
    for column in table.c:
        if isinstance(column.default, ScalarElementColumnDefault):
            constants[column.name] = column.default.arg
        elif isinstance(column.default, CallableColumnDefault) and isinstance(column.type, JSON):
            make: Any = column.default.arg
            constants[column.name] = make(None)
    return constants


@lru_cache
def _insertion(table: Table, names: tuple[str, ...]) -> Statement:
    """INSERT of these columns; the others get the constants that the table gives them."""
    constants = {name: constant for name, constant in _constants(table).items() if name not in names}
    values = {**constants, **{name: bindparam(name, type_=table.c[name].type) for name in names}}

    def write(dialect: Dialect) -> ClauseElement:
        insertion: Any = postgresql.insert if dialect.name == "postgresql" else sqlite.insert
        statement: Any = insertion(table).values(values).on_conflict_do_nothing()
        clause: ClauseElement = statement if dialect.name == "sqlite" else statement.returning(table.c.id)
        return clause

    return Statement(write)


@lru_cache
def _improvement(names: tuple[str, ...]) -> Statement:
    return Statement(
        update(_studies).where(_studies.c.id == bindparam("study_id")).values({name: bindparam(name) for name in names})
    )


def _fitting(table: Table, fields: dict[str, Any]) -> dict[str, Any]:
    """Texts cut to what their columns hold; the archive keeps the full ones."""
    lengths = _lengths(table)
    return {name: value[: lengths.get(name)] if isinstance(value, str) else value for name, value in fields.items()}


@lru_cache
def _lengths(table: Table) -> dict[str, int | None]:
    return {column.name: getattr(column.type, "length", None) for column in table.c}


def _storable(value: Any) -> Any:
    """JSON without lone surrogates, which PostgreSQL refuses."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_storable(entry) for entry in value]
    if isinstance(value, dict):
        return {name: _storable(entry) for name, entry in value.items()}
    return value
