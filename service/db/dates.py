"""When a study was last added to: written with the first instance that comes, and soon after those that follow it.

A study's row stands in five indexes, each a page of every commit before an answer; all that changes from one instance
to the next is when the study was last added to, and its version. While a study is received these wait up to half a
second. What a crash takes with it is that much of both: the study is judged a second early, of thirty, and whoever has
it open hears of its last images with what comes next.
"""

import time
from datetime import datetime, timedelta
from threading import Event, Lock, Thread

from sqlalchemy import update

from service import logs
from service.db.session import Database
from service.db.tables import Study
from service.errors import DatabaseAway

log = logs.get(__name__)

EVERY_S = 0.5
FRESH_S = 1.0  # so long ago at most was the row of a study written whose dates may wait
LEAST_PATIENCE = timedelta(seconds=10)  # a study that is judged sooner after its last image is dated at once


class Dates:
    """Of the studies that one process receives. Nothing waits before `start`, and after `stop`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._written: dict[int, float] = {}  # when the rows were written, by this process's clock
        self._writing: set[int] = set()  # in the transaction that is under way
        self._owed: dict[int, tuple[datetime, datetime]] = {}  # when last received, and when settled
        self._some_owed, self._stopping = Event(), Event()
        self._thread = Thread(target=self._run, name="dates", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is owed."""
        self._stopping.set()
        self._some_owed.set()
        if self._thread.is_alive():
            self._thread.join()

    def may_wait(self, study_id: int, moment: datetime, patience: timedelta) -> bool:
        """Whether the study's row, which is unsettled, need not be written with an instance of this moment."""
        if patience < LEAST_PATIENCE or not self._thread.is_alive() or self._stopping.is_set():
            return False
        with self._lock:
            if time.monotonic() - self._written.get(study_id, -FRESH_S) >= FRESH_S:
                self._writing.add(study_id)
                return False
            self._owed[study_id] = moment, moment + patience
        if not self._some_owed.is_set():  # whoever was told looks after clearing it
            self._some_owed.set()
        return True

    def committed(self, *, well: bool) -> None:
        """The transaction in which rows were written has ended."""
        with self._lock:
            if well:
                self._written.update(dict.fromkeys(self._writing, time.monotonic()))
            self._writing.clear()

    def write(self) -> None:
        """Write what is owed; what could not be is kept for the next time. Never raises."""
        with self._lock:
            owed, self._owed = self._owed, {}
        began, written = time.monotonic(), []
        try:
            for study_id, (received, settles) in owed.items():
                self._date(study_id, received, settles)
                written.append(study_id)
        except DatabaseAway:
            self._some_owed.set()
        except Exception as error:  # noqa: BLE001 - nothing may end this thread, which also writes what is owed last
            log.error("a study was not dated", study=study_id, error=type(error).__name__)
            self._some_owed.set()
        with self._lock:
            for study_id in written:
                del owed[study_id]
            self._owed = owed | self._owed
            self._written.update(dict.fromkeys(written, began))
            self._written = {each: at for each, at in self._written.items() if began - at < FRESH_S}

    def _date(self, study_id: int, received: datetime, settles: datetime) -> None:
        """In a transaction of its own: the door locks several studies in an order that is not ours. The disk need not
        be waited for, the next instance's commit takes it along."""
        with self._database.begin_lightly() as session:
            session.execute(
                update(Study)
                .where(Study.id == study_id, Study.last_received_at < received)
                .values(last_received_at=received, settles_at=settles, version=Study.version + 1)
                .execution_options(synchronize_session=False)
            )

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._some_owed.wait()
            self._stopping.wait(EVERY_S)
            self._some_owed.clear()
            self.write()
        self.write()
