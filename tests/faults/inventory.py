"""What the product holds, read through its own doors: database rows, archived bytes, the queue, the verdicts."""

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from sqlalchemy import func, select

from service.archive.store import ArchiveStore
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Instance, VerdictRecord
from service.errors import NotFound
from tests.faults.ledger import Version

TERMINAL = {AnalysisState.DONE, AnalysisState.QUARANTINED}
GROUP_LENGTH_END = (
    128 + 4 + 12
)  # preamble, "DICM", and the File Meta Information Group Length element: PS3.10 section 7.1


@dataclass(frozen=True)
class Held:
    """One stored version and what became of it."""

    version: Version
    size: int
    archived_sha256: str | None  # of the data set in the archive; None when there is no such file
    archived_size: int
    states: tuple[AnalysisState, ...]
    attempts: int
    reasons: tuple[str, ...]
    standing_verdicts: int
    conflict: bool


@dataclass(frozen=True)
class Inventory:
    """Everything there is at one moment."""

    held: tuple[Held, ...]
    files_without_row: tuple[str, ...]
    temporary_files: tuple[str, ...]
    integrity: str  # what SQLite says of itself, "ok" when all is well

    @property
    def versions(self) -> Counter[Version]:
        return Counter(one.version for one in self.held)


def take_inventory(archive_folder: Path, database_url: str) -> Inventory:
    """Look at everything, recomputing the digest of each archived data set.

    In a process that ends with the look: nothing stays open on a disk that is about to be unmounted.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(_look, archive_folder, database_url).result(600)


def _look(archive_folder: Path, database_url: str) -> Inventory:
    archive, database = ArchiveStore(archive_folder), Database(database_url)
    try:
        with database.read() as session:
            rows = list(session.scalars(select(Instance).order_by(Instance.id)))
            analyses = list(session.scalars(select(Analysis).where(~Analysis.superseded)))
            standing = select(VerdictRecord.instance_id, func.count()).where(
                VerdictRecord.instance_id.is_not(None), VerdictRecord.superseded_at.is_(None)
            )
            verdicts = dict(session.execute(standing.group_by(VerdictRecord.instance_id)).all())
            integrity = "ok"
            if database_url.startswith("sqlite"):
                integrity = session.connection().exec_driver_sql("PRAGMA integrity_check").scalar_one()
    finally:
        database.dispose()
    held = []
    of_instance: dict[int, list[Analysis]] = {}
    for analysis in analyses:
        of_instance.setdefault(analysis.instance_id, []).append(analysis)
    for row in rows:
        data = _data_set(archive, row.archive_key)
        own = of_instance.get(row.id, [])
        held.append(
            Held(
                version=(row.sop_instance_uid, row.sha256),
                size=row.size,
                archived_sha256=None if data is None else sha256(data).hexdigest(),
                archived_size=len(data or b""),
                states=tuple(analysis.state for analysis in own),
                attempts=max((analysis.attempts for analysis in own), default=0),
                reasons=tuple(analysis.reason for analysis in own),
                standing_verdicts=verdicts.get(row.id, 0),
                conflict=row.conflict,
            )
        )
    known = {row.archive_key for row in rows}
    return Inventory(
        tuple(held),
        tuple(sorted(set(archive.keys("instances")) - known)),
        tuple(key for key in archive.keys("incoming") if not key.endswith(".lock")),
        str(integrity),
    )


def _data_set(archive: ArchiveStore, key: str) -> bytes | None:
    """The archived data set without the head of its file."""
    try:
        file = archive.get(key)
    except NotFound:
        return None
    meta = int.from_bytes(file[GROUP_LENGTH_END - 4 : GROUP_LENGTH_END], "little")
    return file[GROUP_LENGTH_END + meta :]
