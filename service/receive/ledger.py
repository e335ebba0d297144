"""Group commit: instances of many associations share one transaction and one sync of each folder.

Nobody is told of an instance before the transaction it is part of has been committed. There is no thread of its own:
whoever comes while nobody commits, commits for all who wait.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock

from sqlalchemy.orm import Session

from service.archive.store import ArchiveStore
from service.db.instances import Arrival, Registration, register
from service.db.session import Database
from service.errors import DatabaseAway, StorageError
from service.failpoints import fp
from service.jobs import enqueue
from service.receive.incoming import Incoming


@dataclass(slots=True)
class Entry:
    """One synced file that waits to be entered."""

    incoming: Incoming
    arrival: Arrival
    registration: Registration | None = None
    analysis_id: int | None = None
    failure: BaseException | None = None
    done: bool = False


class Ledger:
    """Enters arrivals into database and archive, all that wait in one go."""

    def __init__(self, archive: ArchiveStore, database: Database, settle: timedelta) -> None:
        self._archive = archive
        self._database = database
        self._settle = settle
        self._waiting: list[Entry] = []
        self._waiting_lock = Lock()
        self._committing = Lock()

    def enter(self, incoming: Incoming, arrival: Arrival, press: Callable[[int], None]) -> Registration:
        """Rows, name and commit, in this order; the instance is durable on return.

        Raises:
            DatabaseAway, StorageError: it was not entered.
        """
        entry = Entry(incoming, arrival)
        with self._waiting_lock:
            self._waiting.append(entry)
        with self._committing:
            if not entry.done:
                with self._waiting_lock:
                    batch, self._waiting = self._waiting, []
                self._commit(batch)
        if entry.failure is not None:
            raise entry.failure
        if entry.registration is None:
            raise StorageError("The instance was not entered.")
        if entry.analysis_id is not None:
            press(entry.analysis_id)
        return entry.registration

    def _commit(self, batch: list[Entry]) -> None:
        try:
            with self._database.begin() as session:
                for entry in batch:
                    self._enter(session, entry)
                self._archive.publish_all([(e.incoming.path, e.arrival.archive_key) for e in batch if self._wanted(e)])
                fp("receive.before_commit")
            fp("receive.after_commit")
        except (DatabaseAway, StorageError) as error:
            # No second try here: a sync that failed once may claim success the next time with nothing on disk.
            for entry in batch:
                entry.failure = error
        except Exception as error:  # noqa: BLE001 - one odd instance must not fail its neighbours: each is tried alone
            if len(batch) > 1:
                for entry in batch:
                    entry.registration = entry.analysis_id = None
                    self._commit([entry])
            else:
                batch[0].failure = error
        for entry in batch:
            entry.done = True

    def _enter(self, session: Session, entry: Entry) -> None:
        entry.registration = register(session, entry.arrival, self._settle)
        if entry.registration.created:
            entry.analysis_id = enqueue.enqueue_first(session, entry.registration.instance_id)

    def _wanted(self, entry: Entry) -> bool:
        """The same bytes again mend a file that was lost or cut; a whole one is left alone."""
        created = entry.registration is not None and entry.registration.created
        return created or (self._archive.size(entry.arrival.archive_key) or 0) < entry.arrival.size
