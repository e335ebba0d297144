"""The sweeper's slow work, in a thread of its own: re-reads what is archived, and carries the retention policy out."""

import time
from datetime import timedelta
from threading import Event, Thread

from service import logs
from service.archive.retention import finish_releases, release_due
from service.archive.store import ArchiveStore
from service.archive.verify import verify_slice
from service.db import retention
from service.db.session import Database
from service.db.tables import now
from service.errors import DatabaseAway, SonomarkError
from service.settings import Settings

log = logs.get(__name__)

ACTOR = "retention policy"
ROUND_S = 5.0
SLICE_S = 1.0
RELEASE_EVERY_S = 3600.0
RELEASED_AT_ONCE = 500  # studies an hour's round; the rest the next time
JUMP_S = 300.0
QUIET_S = 3 * 24 * 3600.0  # without an image; a longer quiet may be a clock that was wrong when the machine started
AFTER_A_JUMP_S = 24 * 3600.0  # for a person to notice that the clock is wrong


class Keeper:
    """Verification in slices, retention once an hour."""

    def __init__(self, store: ArchiveStore, db: Database, chosen: Settings) -> None:
        self._store = store
        self._db = db
        self._verify_every = timedelta(days=chosen.verify_days)
        self._octets_a_round = int(chosen.verify_mb_s * ROUND_S * 1e6)
        self._clock = time.time(), time.monotonic()
        self._release_from = 0.0  # monotonic
        self._began_well = False

    def start(self) -> Event:
        """Work from a daemon thread until the returned event is set."""
        stop = Event()

        def run() -> None:
            while not stop.wait(ROUND_S):
                self.round()

        Thread(target=run, name="keeper", daemon=True).start()
        return stop

    def round(self) -> None:
        """One turn of everything that is due. Never raises."""
        for duty in (self.verify, self.release):
            try:
                duty()
            except DatabaseAway as error:
                log.warning("database away", cause=error.what)
            except SonomarkError as error:
                log.warning("archive not kept", duty=duty.__name__, reason=error.what, cure=error.cure)
            except Exception:
                log.exception("archive not kept", duty=duty.__name__)

    def verify(self) -> None:
        """The next slice of the scheduled verification."""
        if self._verify_every:
            verify_slice(self._store, self._db, self._verify_every, SLICE_S, self._octets_a_round)

    def release(self) -> None:
        """What the policy in force releases, unless the clock has just jumped: age is told by it alone."""
        if self._clock_jumped() or self._began_late():
            log.error("the clock may be wrong, nothing is released for a day", cure="Check the time service.")
            self._release_from = time.monotonic() + AFTER_A_JUMP_S
        if time.monotonic() < self._release_from:
            return
        self._release_from = time.monotonic() + RELEASE_EVERY_S
        finish_releases(self._store, self._db)
        release_due(self._store, self._db, ACTOR, limit=RELEASED_AT_ONCE)

    def _began_late(self) -> bool:
        """Whether this process may have begun after a jump, of which the time that passed then tells nothing."""
        if self._began_well:
            return False
        with self._db.read() as session:
            newest = retention.newest_image(session)
        self._began_well = True  # asked once; what comes next it sees itself
        return newest is not None and (now() - newest).total_seconds() > QUIET_S

    def _clock_jumped(self) -> bool:
        (wall, steady), self._clock = self._clock, (time.time(), time.monotonic())
        return abs((self._clock[0] - wall) - (self._clock[1] - steady)) > JUMP_S
