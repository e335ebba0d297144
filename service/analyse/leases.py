"""Leases of the analyses in hand, renewed from a thread for as long as they are held."""

import os
import time
from collections.abc import Collection
from threading import Event, Lock, Thread

from service import logs
from service.db import analyses
from service.db.analyses import Claim
from service.db.session import Database
from service.errors import DatabaseAway

log = logs.get(__name__)

# Nothing takes this long; a worker that hangs where no other limit reaches ends itself, and another tries again.
HELD_AT_MOST_S = 1800.0


class Leases:
    """What this process holds. May be told from several threads."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self._lease_s = lease_s
        self._held: dict[Claim, float] = {}  # since when, by the monotonic clock
        self._lock = Lock()
        self._wanted = Event()
        Thread(target=self._renew, name="leases", daemon=True).start()

    def hold(self, claims: Collection[Claim]) -> None:
        """Keep these alive until they are released."""
        with self._lock:
            self._held |= dict.fromkeys(claims, time.monotonic())
        self._wanted.set()

    def release(self, claims: Collection[Claim]) -> None:
        """They have come to their ends."""
        with self._lock:
            for held in claims:
                self._held.pop(held, None)
            if not self._held:
                self._wanted.clear()

    def _renew(self) -> None:
        while True:
            self._wanted.wait()
            time.sleep(self._lease_s / 4)
            with self._lock:
                held = dict(self._held)
            if held and time.monotonic() - min(held.values()) > HELD_AT_MOST_S:
                log.error("the worker hangs and ends itself", limit_s=HELD_AT_MOST_S)
                os._exit(1)
            try:
                with self._database.begin_lightly() as session:
                    analyses.renew(session, held, self._lease_s)
            except DatabaseAway:
                log.warning("leases not renewed, database away")
            except Exception as error:  # noqa: BLE001 - nothing may end this thread: every later claim would run out
                log.error("leases not renewed", error=type(error).__name__)
