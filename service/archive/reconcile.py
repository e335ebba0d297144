"""Archive and database, compared both ways. Repairs what is safe to repair, reports the rest.

Nothing is deleted save what a person's policy has released already and what a killed process had not finished writing.
"""

from dataclasses import dataclass

from service import logs
from service.archive.retention import finish_releases
from service.archive.store import CHUNK, ArchiveStore
from service.archive.verify import CURE, condition_of, digest
from service.db import checks
from service.db.checks import Stored
from service.db.instances import Arrival, Settle, known_keys, register
from service.db.session import Database
from service.db.tables import Condition
from service.dicom.header import read_header
from service.dicom.uid import require_uid
from service.errors import DamagedObject, DicomError, DiskFault, NotFound
from service.jobs import enqueue

log = logs.get(__name__)

# One part of the digests at a time, so that neither side is ever in memory whole.
PARTS = "0123456789abcdef"
FOLDERS = [f"{high}{low}" for high in PARTS for low in PARTS]


@dataclass(slots=True)
class Reconciliation:
    """What was found, and what became of it."""

    abandoned: int = 0  # temporary files of ended processes, removed
    registered: int = 0  # complete files without a row, registered and queued
    stray: int = 0  # files without a row that could not be registered: reported, kept
    missing: int = 0  # rows without a file: reported
    returned: int = 0  # rows whose file was missing at the last look and is back
    mended: int = 0  # objects of the bucket replaced by this machine's good copy
    deleted: int = 0  # bytes that a policy had released and a killed process had not deleted yet

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, name)} {name}" for name in self.__slots__)


def reconcile(archive: ArchiveStore, database: Database, settle: Settle, *, repair: bool = True) -> Reconciliation:
    """Compare the archive's instances with the database's; without ``repair`` only look and report.

    Raises:
        DatabaseAway, StorageError: it could not be finished.
    """
    found = Reconciliation()
    if repair:
        found.abandoned = archive.remove_abandoned()
        found.deleted = finish_releases(archive, database)
    for part in PARTS:
        there = {key for folder in FOLDERS if folder[0] == part for key in archive.keys(f"instances/{folder}")}
        with database.read() as session:
            wanted = {each.archive_key: each for each in checks.beginning_with(session, part)}
        _files_without_rows(archive, database, settle, there - wanted.keys(), found, repair=repair)
        _rows_without_files(archive, database, [wanted[key] for key in sorted(wanted.keys() - there)], found)
        _back_again(database, [wanted[key] for key in wanted.keys() & there], found)
    if repair:
        found.mended = _mend(archive, database)
    log.info("reconciled", **{name: getattr(found, name) for name in found.__slots__})
    return found


def _files_without_rows(
    archive: ArchiveStore,
    database: Database,
    settle: Settle,
    keys: set[str],
    found: Reconciliation,
    *,
    repair: bool,
) -> None:
    with database.read() as session:
        # Also of released instances, whose bytes are not wanted but whose rows are there; and of those stored just now.
        unknown = [key for key in sorted(keys) if not known_keys(session, [key])]
    for key in unknown:
        try:
            arrival = _arrival(archive, key)
        except (DicomError, NotFound, DiskFault) as error:
            if isinstance(error, DiskFault):
                archive.prove()  # one file on a bad sector keeps nothing else back; a disk that fails does
            found.stray += 1
            log.error("file without a row", key=key, reason=str(error), cure="Look at the file; it was kept.")
            continue
        found.registered += 1
        log.warning("file without a row", key=key, registered=repair)
        if repair:
            with database.begin() as session:
                registration = register(session, arrival, settle(arrival.calling_ae_title))
                new = registration.created
                queued = [enqueue.enqueue_first(session, registration.instance_id)] if new else []
            enqueue.ring(queued)


def _arrival(archive: ArchiveStore, key: str) -> Arrival:
    """A complete file that was never acknowledged, or whose row was lost with a restored database."""
    path = archive.path(key)
    sha256, size = digest(archive.stream(key))  # before the header, which is mapped: a bad sector would end the process
    if sha256 != path.stem:
        raise DicomError("The file's bytes are not those its name says.", cure=DamagedObject.cure)
    header = read_header(path)
    for uid in (header.sop_instance_uid, header.study_instance_uid, header.series_instance_uid):
        require_uid(uid, "UID of the file")
    return Arrival(header=header, sha256=sha256, size=size, archive_key=key)


def _rows_without_files(archive: ArchiveStore, database: Database, rows: list[Stored], found: Reconciliation) -> None:
    """Looked at once more each: a file may have come between the two listings."""
    missing = [row for row in rows if not archive.exists(row.archive_key)]
    if not missing:
        return
    found.missing += len(missing)
    with database.begin() as session:
        checks.record(session, {row.instance_id: Condition.MISSING for row in missing})
    for row in missing:
        log.error(
            "row without a file",
            instance=row.instance_id,
            key=row.archive_key,
            cure=CURE,
        )


def _back_again(database: Database, rows: list[Stored], found: Reconciliation) -> None:
    with database.read() as session:
        if not checks.counts(session)[Condition.MISSING]:
            return
    with database.begin() as session:
        found.returned += checks.forget_missing(session, [row.instance_id for row in rows])


def _mend(archive: ArchiveStore, database: Database) -> int:
    """Objects found damaged or missing in the bucket of which this machine still holds good bytes."""
    mended = 0
    with database.read() as session:
        ill = checks.ill(session)
    for row, _ in ill:
        if _good_copy(archive, row) and archive.mend(row.archive_key) and condition_of(archive, row) is Condition.OK:
            with database.begin() as session:
                checks.record(session, {row.instance_id: Condition.OK})
            log.warning("object mended", instance=row.instance_id, key=row.archive_key)
            mended += 1
    return mended


def _good_copy(archive: ArchiveStore, row: Stored) -> bool:
    try:
        with archive.place(row.archive_key).open("rb") as file:
            return digest(iter(lambda: file.read(CHUNK), b""))[0] == row.sha256
    except (OSError, DicomError):
        return False
