"""Frames a second of one worker process and of two, the network on one thread each.

    python -m bench.workers [--instances 480] [--rounds 3] [--database postgresql]

A house of its own (PostgreSQL, or SQLite; folder broker), instances of 600 x 800 pixels stored beforehand, the bells
rung when all processes are ready for them; the clock runs from the first claim to the last verdict. The peer in the
same rounds is the machine itself: the bare network in one process and in two, with nothing around it. Cores that share
a clock, a cache or a memory bus cannot do twice the work of one, and no queue can do better than they; printed is what
share of that ceiling the workers reach. The fewer instances, the more of the clock are the first batches, which compile
every statement, and the last, in which one of two has nothing left to do.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from statistics import median

from sqlalchemy import func, select

from bench.assess import ROWS, screen
from bench.queue import databases
from service.archive.store import archive, instance_key
from service.db import heartbeats, instances
from service.db.session import database
from service.db.tables import Analysis, AnalysisState, Base
from service.dicom.header import read_header
from service.jobs import enqueue
from service.settings import settings

BARE_S = 4.0
BARE = """
import sys, time
import numpy as np
from service.analyse.restoration import load_network
from service.settings import settings
network, frame = load_network(settings(), threads=1), np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
network.restore([frame])
print("ready", flush=True)
sys.stdin.readline()
began, done = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[1]):
    network.restore([frame])
    done += 1
print(done / (time.perf_counter() - began))
"""
ROLE = "from service import logs; logs.configure('work'); from service.analyse.crew import work; work()"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--instances", type=int, default=480)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--database", default="postgresql", choices=["postgresql", "sqlite"])
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # as root, PostgreSQL runs as another user
        servers = databases(Path(folder))
        sqlite = next(servers)
        url = next(servers, sqlite) if chosen.database == "postgresql" else ""
        compare(chosen.instances, chosen.rounds, url)
        for _ in servers:
            pass  # stops the server


def compare(instances: int, rounds: int, url: str) -> None:
    """Both, with one process and with two, round by round; an empty ``url`` is a SQLite of each house's own."""
    workers: dict[int, list[float]] = {1: [], 2: []}
    bare: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes in workers:
            bare[processes].append(bare_frames_per_second(processes))
            workers[processes].append(frames_per_second(processes, instances, url))
    for name, rates in (("workers", workers), ("bare network", bare)):
        for processes, found in rates.items():
            told = sorted(round(rate, 2) for rate in found)
            print(f"{name}, {processes} process(es): median {median(found):.2f} frames/s of {told}")
    # By pairs of one round: what else the machine does changes from round to round.
    ratio, ceiling = (median(two / one for one, two in zip(*rates.values(), strict=True)) for rates in (workers, bare))
    print(f"two processes are {ratio:.2f} times one; the bare network {ceiling:.2f} times: {ratio / ceiling:.0%} of it")
    print(f"of the bare network's frames the workers do {median(workers[1]) / median(bare[1]):.0%} with one process")


def bare_frames_per_second(processes: int) -> float:
    """The network alone on one thread each, all processes at once."""
    command = [sys.executable, "-c", BARE, str(BARE_S)]
    running = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(processes)]
    for one in running:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in running:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    return sum(float(one.communicate()[0]) for one in running)


def frames_per_second(processes: int, count: int, url: str) -> float:
    """Drain ``count`` instances with this many worker processes."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SONOMARK_DATA_DIR"], os.environ["SONOMARK_DATABASE_URL"] = folder, url
        for cached in (settings, database, archive):
            cached.cache_clear()
        Base.metadata.drop_all(database().engine)
        Base.metadata.create_all(database().engine)
        queued = [store(Path(folder), 3 * number + 2) for number in range(count)]
        environment = os.environ | {"SONOMARK_WORKERS": str(processes), "SONOMARK_THREADS": "1"}
        with (Path(folder) / "work.log").open("wb") as log:
            worker = subprocess.Popen([sys.executable, "-c", ROLE], env=environment, stdout=log, stderr=log)
        try:
            while alive() < processes:
                pause(worker, Path(folder))
            enqueue.ring(queued)
            while in_flight():
                pause(worker, Path(folder))
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
        with database().read() as session:
            first, last = session.execute(select(func.min(Analysis.claimed_at), func.max(Analysis.finished_at))).one()
            done = session.scalar(select(func.count()).where(Analysis.state == AnalysisState.DONE))
        assert done == count, f"only {done} of {count} are done"
        assert first is not None and last is not None
        database().dispose()
    return count / (last - first).total_seconds()


def pause(worker: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Before the next look, which takes from the cores that are measured."""
    if worker.poll() is not None:
        sys.exit((folder / "work.log").read_text())
    time.sleep(1.0)


def alive() -> int:
    """Worker processes with their network loaded and warm."""
    with database().read() as session:
        return heartbeats.alive(session).get("work", 0)


def in_flight() -> bool:
    with database().read() as session:
        ended = Analysis.state.in_((AnalysisState.DONE, AnalysisState.QUARANTINED))
        return bool(session.scalar(select(func.count()).where(~ended)))


def store(folder: Path, number: int) -> int:
    """One DICOM instance of its own, archived, registered and queued."""
    path = screen(folder, number)
    digest = sha256(path.read_bytes()).hexdigest()
    kept = archive().incoming()
    shutil.move(path, kept)
    size = archive().keep(kept, instance_key(digest)).stat().st_size
    header = read_header(archive().path(instance_key(digest)))
    assert header.instance["rows"] == ROWS
    with database().begin() as session:
        arrival = instances.Arrival(header, digest, size, instance_key(digest))
        registered = instances.register(session, arrival, timedelta(hours=1))
        return enqueue.enqueue_first(session, registered.instance_id)


if __name__ == "__main__":
    main()
