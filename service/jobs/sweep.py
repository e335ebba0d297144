"""The role ``sweep``: finds what was lost on the way and judges studies that have settled.

The queue is only speed; that every instance reaches an end is this loop's doing.
"""

import signal
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from time import monotonic

from kombu.exceptions import ChannelError, KombuError

from service import failpoints, logs, telemetry, tracing
from service.archive.store import archive
from service.compliance.outcome import Verdict
from service.db import analyses, deliveries, instances, switches, verdicts
from service.db.analyses import Lease
from service.db.heartbeats import keep_beating
from service.db.session import Database, database
from service.db.tables import Analysis, AnalysisState, now
from service.db.verdicts import Turn
from service.errors import DatabaseAway, SonomarkError
from service.failpoints import fp
from service.jobs import judge, reevaluate
from service.jobs.app import QUEUE, app
from service.jobs.enqueue import ring
from service.jobs.keep import Keeper
from service.settings import settings

log = logs.get(__name__)

RINGS_AT_ONCE = 1000
STUDIES_AT_ONCE = 100
REEVALUATIONS_EVERY_S = 60.0
WORKER_GONE = "Its worker died or fell silent"


def sweep() -> None:
    """Sweep every ``SWEEP_INTERVAL_S`` until SIGTERM or SIGINT."""
    failpoints.refuse_in_production()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    beating = keep_beating(database(), "sweep")
    keeping = Keeper(archive(), database(), settings()).start()
    sweeper = Sweeper(database(), settings().lease_s, settings().max_attempts)
    if deliveries.wanted():
        from service.deliver.outbox import Outbox

        Outbox(database()).start(stop)
    log.info("sweeping", every_s=settings().sweep_interval_s)
    while not stop.wait(settings().sweep_interval_s):
        try:
            sweeper.sweep()
        except DatabaseAway as error:
            log.warning("database away", cause=error.what)
        except Exception:
            log.exception("sweep failed")
    keeping.set()
    beating.set()


@dataclass
class Seen:
    """A lease as it was first seen, by this process's own clock."""

    lease: Lease
    at: float


class Sweeper:
    """Remembers leases from one round to the next.

    A lease has run out when it has not moved for its length *on this process's monotonic clock*. The time written in
    the row is never compared with the time of day, so neither a jumping clock nor one that differs between machines
    takes work away from a worker that is alive.
    """

    def __init__(self, db: Database, lease_s: float, max_attempts: int) -> None:
        self._db = db
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._seen: dict[tuple[int, str], Seen] = {}
        self._rang_at = monotonic()
        self._judged_up_to: Turn | None = None

    def sweep(self) -> None:
        """One round. A duty that fails keeps the others from nothing."""
        duties = (
            self.take_from_the_silent,
            self.ring_for_the_forgotten,
            self.judge_the_settled,
            self.ring_for_reevaluations,
        )
        for duty in duties:
            try:
                duty()
            except DatabaseAway:
                raise
            except Exception:
                log.exception("sweep failed", duty=duty.__name__)

    def take_from_the_silent(self) -> int:
        """Queue again what a silent worker holds, or give it up after too many attempts; returns how many."""
        with self._db.read() as session:
            held = analyses.leases(session)
        expired = self._expired(held)
        for lease in expired:
            fp("sweep.before_requeue")
            try:
                self._take_away(lease)
            except DatabaseAway:
                raise
            except Exception as error:  # noqa: BLE001 - one of them never stops the line
                log.error("lease not taken away", analysis=lease.analysis_id, error=type(error).__name__)
        return len(expired)

    def ring_for_the_forgotten(self) -> int:
        """Ring for analyses that wait and for which no message is under way; returns how often."""
        with self._db.read() as session:
            if switches.is_on(session, switches.PAUSED):
                return 0
            count, oldest = analyses.standing(session, AnalysisState.QUEUED)
            # Queued in the future: by a clock that was ahead then.
            if oldest is None or abs(now() - oldest) < timedelta(seconds=2 * settings().sweep_interval_s):
                return 0
            messages = waiting_messages()
            if messages is None or count <= messages:
                return 0
            ids = analyses.oldest_waiting(session, min(count - messages, RINGS_AT_ONCE))
        return len(ids) if ring(ids) else 0

    def judge_the_settled(self) -> int:
        """Judge studies whose last image came long enough ago; returns how many."""
        with self._db.read() as session:
            due = verdicts.due(session, STUDIES_AT_ONCE, self._judged_up_to)
        # The next round goes on behind these: those that cannot be judged stay due, and there may be a round full.
        self._judged_up_to = due[-1] if len(due) == STUDIES_AT_ONCE else None
        for _, study_id in due:
            try:
                began = monotonic()
                with self._db.begin() as session:
                    verdict = judge.judge_study(session, study_id)
                    ways = instances.correlation_ids(session, study_id)
                _tell(study_id, verdict, ways, monotonic() - began)
            except DatabaseAway:
                raise
            except SonomarkError as error:
                log.error("study not judged", study=study_id, cause=error.what, cure=error.cure)
            except Exception as error:  # noqa: BLE001 - one study never stops the line
                log.error("study not judged", study=study_id, error=type(error).__name__)
        return len(due)

    def ring_for_reevaluations(self) -> None:
        """Once in a while ring for re-evaluations whose message was lost; a second ring finds nothing to do."""
        if monotonic() - self._rang_at > REEVALUATIONS_EVERY_S:
            self._rang_at = monotonic()
            reevaluate.ring_for_unfinished()

    def _expired(self, held: list[Lease]) -> list[Lease]:
        at = monotonic()
        seen = {}
        for lease in held:
            key = (lease.analysis_id, lease.token)
            before = self._seen.get(key)
            moved = before is None or before.lease.expires_at != lease.expires_at
            seen[key] = Seen(lease, at) if moved or before is None else before
        self._seen = seen
        return [known.lease for known in seen.values() if at - known.at > self._lease_s]

    def _take_away(self, lease: Lease) -> None:
        with self._db.begin() as session:
            if lease.attempts < self._max_attempts:
                taken = analyses.take_away(session, lease, f"{WORKER_GONE} during attempt {lease.attempts}.")
            else:
                taken = analyses.quarantine(
                    session,
                    lease,
                    f"{WORKER_GONE} in each of {lease.attempts} attempts.",
                    "Look for this analysis in the workers' log and at their memory, then queue it again.",
                )
                if taken:
                    judge.judge_given_up(session, session.get_one(Analysis, lease.analysis_id).instance_id)
        if taken:
            telemetry.LEASES_EXPIRED.inc()
            log.warning("lease ran out", analysis=lease.analysis_id, attempts=lease.attempts)
            ring([lease.analysis_id])


def _tell(study_id: int, verdict: Verdict | None, ways: list[str], took_s: float) -> None:
    """The end of the trail: the study's verdict, under the correlation id of every association that brought a part."""
    if verdict is not None:
        log.info("study judged", study=study_id, verdict=verdict.value, correlation_ids=ways)
        for correlation_id in ways:
            tracing.passed("judge", correlation_id, took_s, study=study_id, verdict=verdict.value)


def waiting_messages() -> int | None:
    """Messages in the broker that no worker has taken yet; None when it does not answer."""
    try:
        with app().connection_for_read(connect_timeout=2) as connection:
            return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)
    except ChannelError:
        return 0  # a queue that was flushed away is empty
    except (KombuError, OSError) as error:
        log.warning("broker away", cause=type(error).__name__)
        return None
