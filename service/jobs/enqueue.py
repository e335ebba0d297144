"""Into the queue: the row inside the receiver's transaction, the doorbell after its commit."""

from collections.abc import Iterable
from time import monotonic

from kombu.exceptions import KombuError, OperationalError
from sqlalchemy.orm import Session

from service import logs
from service.db import analyses, instances
from service.db.tables import Analysis, Instance
from service.jobs.app import ANALYSE, app

log = logs.get(__name__)

# A broker that is away is left alone this long, so that no C-STORE waits for it; the sweeper rings meanwhile.
SILENCE_S = 5.0
_silent_until = 0.0


def enqueue(session: Session, instance: Instance) -> Analysis:
    """The row that makes ``instance`` wait for a worker, in the caller's transaction; its id is known at once."""
    return analyses.add(session, instance)


def enqueue_first(session: Session, instance_id: int) -> int:
    """The same for an instance that this transaction has just made; the id of its first analysis."""
    return instances.first_analysis(session, instance_id)


def ring(analysis_ids: Iterable[int]) -> bool:
    """Tell the workers, after the commit, that these analyses wait. Never raises; False when the broker is away.

    A lost message does no harm: the sweeper finds rows that nobody came for and rings again.
    """
    global _silent_until
    if monotonic() < _silent_until:
        return False
    try:
        with app().producer_pool.acquire(block=True, timeout=1.0) as producer:
            for analysis_id in analysis_ids:
                app().send_task(ANALYSE, args=[analysis_id], producer=producer, retry=False)
    except (KombuError, OperationalError, OSError) as error:
        _silent_until = monotonic() + SILENCE_S
        log.warning("broker away, the sweeper will ring", cause=type(error).__name__)
        return False
    return True


def prepare() -> None:
    """Load beforehand what the first bell needs: Celery looks through every installed package for its back ends, some
    20 ms for which the first images of a process would wait. Never raises."""
    if ring([]):
        _ = app().backend
