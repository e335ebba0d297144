"""Archive and database, compared both ways. Repairs what is safe to repair, reports the rest, deletes nothing."""

from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

from service import logs
from service.archive.store import ArchiveStore
from service.db.instances import Arrival, Settle, archive_keys, known_keys, register
from service.db.session import Database
from service.dicom.header import data_set_start, read_header
from service.errors import DicomError, NotFound
from service.jobs import enqueue
from service.receive.intake import require_uid

log = logs.get(__name__)

PAGE = 500


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found."""

    abandoned: int = 0  # temporary files of ended processes, removed
    registered: int = 0  # complete files without a row, registered and queued
    stray: int = 0  # files without a row that could not be registered: reported, kept
    missing: int = 0  # rows without a file: reported


def reconcile(archive: ArchiveStore, database: Database, settle: Settle) -> Reconciliation:
    """Compare the archive's instances with the database's."""
    found = Reconciliation(
        archive.remove_abandoned(), *_register_files(archive, database, settle), _missing(archive, database)
    )
    log.info(
        "reconciled",
        abandoned=found.abandoned,
        registered=found.registered,
        stray=found.stray,
        missing=found.missing,
    )
    return found


def _register_files(archive: ArchiveStore, database: Database, settle: Settle) -> tuple[int, int]:
    registered = stray = 0
    files = archive.keys("instances")
    while page := list(islice(files, PAGE)):
        with database.read() as session:
            known = known_keys(session, page)
        for key in sorted(set(page) - known):
            try:
                analysis_id = _register(archive.path(key), key, database, settle)
            except (DicomError, NotFound) as error:
                stray += 1
                log.error("file without a row", key=key, reason=str(error), cure="Look at the file; it was kept.")
                continue
            registered += 1
            log.warning("file registered", key=key)
            if analysis_id is not None:
                enqueue.ring([analysis_id])
    return registered, stray


def _register(path: Path, key: str, database: Database, settle: Settle) -> int | None:
    """Give a complete file its rows. It was never acknowledged, or its row was lost with a restored database."""
    header = read_header(path)
    for uid in (header.sop_instance_uid, header.study_instance_uid, header.series_instance_uid):
        require_uid(uid, "UID of the file")
    digest = sha256()
    with path.open("rb") as file:
        start = data_set_start(path)
        file.seek(start)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        size = file.tell() - start
    if digest.hexdigest() != path.stem:
        raise DicomError("The file's bytes are not those its name says.")
    arrival = Arrival(header=header, sha256=digest.hexdigest(), size=size, archive_key=key)
    with database.begin() as session:
        registration = register(session, arrival, settle(arrival.calling_ae_title))
        return enqueue.enqueue_first(session, registration.instance_id) if registration.created else None


def _missing(archive: ArchiveStore, database: Database) -> int:
    missing = last = 0
    while True:
        with database.read() as session:
            page = archive_keys(session, last, PAGE)
        if not page:
            return missing
        for row, key in page:
            if not archive.exists(key):
                missing += 1
                log.error(
                    "row without a file",
                    instance=row,
                    key=key,
                    cure="Restore the file from backup, or send the instance again: the same bytes mend it.",
                )
        last = page[-1][0]
