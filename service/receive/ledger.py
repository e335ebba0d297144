"""Group commit: instances of many associations share one transaction.

Nobody is told of an instance before the transaction it is part of has been committed. There is no thread of its own:
whoever comes while nobody commits, commits for all who wait or are about to.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from service.archive.store import ArchiveStore
from service.db.dates import Dates
from service.db.instances import Arrival, Registration, Settle, register_all
from service.db.session import Database
from service.dicom.header import EXPLICIT_VR_LITTLE_ENDIAN, parse_header
from service.errors import DatabaseAway, StorageError
from service.failpoints import fp
from service.receive.filing import Filing
from service.receive.incoming import Incoming

# The disk writes a small one while its rows are made. The sync of a large one would hold the transaction up.
SMALL = 1 << 20
NAPS, NAP_S = 4, 0.00005  # a nap takes some 0.1 ms in truth, an instance 0.3 from its last byte on


_NOBODYS = b"\x08\x00\x18\x00UI\x02\x001\x00"  # a data set of one element, its SOP Instance UID


class _TakenBack(Exception):
    """The end of a rehearsal."""


@dataclass(slots=True)
class Entry:
    """One instance that is sealed and waits to be entered."""

    incoming: Incoming
    arrival: Arrival
    registration: Registration | None = None
    failure: BaseException | None = None
    done: bool = False


class Ledger:
    """Enters arrivals into database and archive, all that wait in one go."""

    def __init__(self, archive: ArchiveStore, database: Database, settle: Settle, filing: Filing, dates: Dates) -> None:
        self._archive = archive
        self._database = database
        self._settle = settle
        self._filing = filing
        self._dates = dates
        self._waiting: list[Entry] = []
        self._coming = 0  # of `expect`
        self._waiting_lock = Lock()
        self._committing = Lock()

    def rehearse(self) -> None:
        """Enter an instance that nobody sent, and take it back: what is made once for all is made before the first
        sender waits for it. Never raises; whoever comes first hears what hinders it."""
        nobodys = Arrival(parse_header(_NOBODYS, EXPLICIT_VR_LITTLE_ENDIAN), sha256="", size=0, archive_key="")
        with suppress(Exception), self._database.cursor() as cursor:
            register_all(cursor, [nobodys], self._settle)
            raise _TakenBack

    def expect(self) -> None:
        """An instance is complete and will be entered, unless `give_up` is told."""
        with self._waiting_lock:
            self._coming += 1

    def give_up(self) -> None:
        """One that was expected does not come."""
        with self._waiting_lock:
            self._coming -= 1

    def enter(self, incoming: Incoming, arrival: Arrival) -> Registration:
        """Bytes, name and commit, in this order; the instance is durable and queued on return.

        Raises:
            DatabaseAway, StorageError: it was not entered.
        """
        entry = Entry(incoming, arrival)
        small = incoming.size <= SMALL
        at_once = small and self._committing.acquire(blocking=False)
        if not small:
            try:
                incoming.sync()
            except BaseException:
                self.give_up()
                raise
        with self._waiting_lock:
            # Who commits syncs its own bytes first, while the threads of the others sync theirs.
            self._waiting.insert(0 if at_once else len(self._waiting), entry)
            self._coming -= 1
        if not at_once:
            with suppress(StorageError):  # whoever commits it hears the same
                incoming.sync()
            self._committing.acquire()
        try:
            if not entry.done:
                self._await_company()
                with self._waiting_lock:
                    batch, self._waiting = self._waiting, []
                self._commit(batch)
        finally:
            self._committing.release()
        if entry.failure is not None:
            raise entry.failure
        if entry.registration is None:
            raise StorageError(
                "The instance was not entered.",
                cure="Send it again; if that does not help, restart the receiver and report what its log says.",
            )
        return entry.registration

    def _await_company(self) -> None:
        """A commit costs the same for one and for four: those that are as good as here may share this one."""
        for _ in range(NAPS):
            if not self._coming:
                return
            time.sleep(NAP_S)

    def hand_on(self, incoming: Incoming) -> None:
        """Nobody knows whether its rows are there: its bytes get a file in any case."""
        self._hand_on(incoming, incoming.record is not None)

    def _commit(self, batch: list[Entry]) -> None:
        try:
            with self._database.cursor() as cursor:
                registrations = register_all(
                    cursor, [entry.arrival for entry in batch], self._settle, dates=self._dates
                )
                wanted = [self._wanted(*each) for each in zip(batch, registrations, strict=True)]
                for entry in batch:
                    entry.incoming.sync()
                own_files = [
                    (entry.incoming.path, entry.arrival.archive_key)
                    for entry, needed in zip(batch, wanted, strict=True)
                    if needed and entry.incoming.path is not None
                ]
                if own_files:
                    self._archive.publish_all(own_files)
                fp("receive.before_commit")
            self._dates.committed(well=True)
            fp("receive.after_commit")
            for entry, registration, needed in zip(batch, registrations, wanted, strict=True):
                entry.registration = registration
                self._hand_on(entry.incoming, needed)
        except (DatabaseAway, StorageError) as error:
            self._dates.committed(well=False)
            # No second try here: a sync that failed once may claim success the next time with nothing on disk.
            for entry in batch:
                entry.failure = error
        except Exception as error:  # noqa: BLE001 - one odd instance must not fail its neighbours: each is tried alone
            self._dates.committed(well=False)
            if len(batch) > 1:
                for entry in batch:
                    self._commit([entry])
            else:
                batch[0].failure = error
        for entry in batch:
            entry.done = True

    def _hand_on(self, incoming: Incoming, wanted: bool) -> None:
        if not wanted:
            incoming.void()
        elif (kept := incoming.keep()) is not None:
            self._filing.add(*kept)

    def _wanted(self, entry: Entry, registration: Registration) -> bool:
        """The same bytes again mend a file that was lost, cut or damaged; a whole one is left alone."""
        if registration.created:
            return True
        whole = entry.incoming.head_size + entry.arrival.size
        wanted = registration.wanted or (self._archive.filed_size(entry.arrival.archive_key) or 0) < whole
        if wanted:  # who deleted the file has done so by now: the study is locked
            entry.incoming.seal_again()
        return wanted
