"""Suspension: once a disk has failed, the door takes nothing until its storage has proven itself.

Linux drops the pages that it could not write and calls them clean, so that the next sync of the same file succeeds with
nothing on disk. What was in doubt is therefore never synced again: a new file is written, synced and read back from
the disk itself, and SQLite's log is written over itself before it is synced. Until that has succeeded every C-STORE
and STOW-RS is answered with 0xA700, and senders keep their copies.
"""

import errno
from threading import Event, Lock, Thread

from service import logs, telemetry
from service.archive.disk import storage, write_anew
from service.archive.store import ArchiveStore
from service.db.session import Database
from service.errors import DiskFault, StorageError

log = logs.get(__name__)

RETRY_S = 5.0
CURE = "Look at the disk (`dmesg`, `smartctl`). Receiving goes on by itself once storage has passed its test."


class Suspension:
    """One process's trust in its disk."""

    def __init__(self, archive: ArchiveStore, database: Database) -> None:
        self._archive = archive
        self._database = database
        self._lock = Lock()
        self._faults = 0  # ever noted
        self._reason = ""
        database.on_doubt = self._doubt
        self.unsettled = Event()  # there may be files now that no row knows of: reconciliation clears it

    def require_trust(self) -> None:
        """Raise StorageError while the door is suspended."""
        if reason := self.reason():
            raise StorageError(f"Storage is not trusted: {reason}", cure=CURE)

    def reason(self) -> str:
        """Why the door is suspended; empty when it is not."""
        return self._reason

    def note(self, error: BaseException) -> None:
        """Suspend the door if this error is one of the disk's."""
        if isinstance(error, DiskFault) or (isinstance(error, OSError) and error.errno == errno.EIO):
            self._begin(error.what if isinstance(error, DiskFault) else "The disk failed.")

    def _doubt(self) -> None:
        self._begin("The database's disk failed.")

    def _begin(self, reason: str) -> None:
        with self._lock:
            self._faults += 1
            if self._reason:
                return
            self._reason = reason
        telemetry.STORAGE_SUSPENDED.set(1)
        log.critical("SUSPENDED: nothing is taken in until storage has proven itself", reason=reason, cure=CURE)
        Thread(target=self._run, name="suspension", daemon=True).start()

    def _run(self) -> None:
        pause = Event()
        while True:
            known = self._faults
            try:
                self._prove()
            except Exception as error:  # noqa: BLE001 - nothing may end this thread: the door would stay shut for ever
                log.critical("storage failed its test", reason=str(error), cure=CURE)
                pause.wait(RETRY_S)
                continue
            with self._lock:
                if self._faults == known:
                    self._reason = ""
                    break
        telemetry.STORAGE_SUSPENDED.set(0)
        log.warning("storage has proven itself, instances are taken in again")
        self.unsettled.set()

    def _prove(self) -> None:
        self._archive.prove()
        with self._database.log_at_rest() as written_log, storage("SQLite's log failed its test"):
            if written_log is not None:
                write_anew(written_log)
