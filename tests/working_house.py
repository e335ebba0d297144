"""Real worker and sweeper processes over a house of their own; instances put in as the receiver does."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from sqlalchemy import select

from service.archive.store import archive, instance_key
from service.db import instances
from service.db.session import database
from service.db.tables import Analysis, AnalysisState
from service.dicom.header import read_header
from service.jobs import enqueue
from service.settings import settings

BEGINNINGS = {
    "work": "from service.analyse.crew import work; work()",
    "sweep": "from service.jobs.sweep import sweep; sweep()",
}


class WorkingHouse:
    """Settings, database, archive and the processes that a test started."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self.environment = environment
        self.logs = logs
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, role: str, **more: str) -> subprocess.Popen[bytes]:
        """One role in a process group of its own; its log is ``<role>-<n>.log``."""
        with (self.logs / f"{role}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", f"from service import logs; logs.configure('{role}'); {BEGINNINGS[role]}"],
                env=self.environment | more,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def store(self, path: Path, ring: bool = True) -> int:
        """Archive, register and queue a file as the receiver does; returns the analysis' id."""
        digest = sha256(path.read_bytes()).hexdigest()
        kept = archive().incoming()
        shutil.copy(path, kept)
        archive().keep(kept, instance_key(digest))
        arrival = instances.Arrival(read_header(path), digest, path.stat().st_size, instance_key(digest))
        with database().begin() as session:
            registered = instances.register(session, arrival, timedelta(seconds=settings().study_settle_s))
            analysis = enqueue.enqueue_first(session, registered.instance_id)
        if ring:
            enqueue.ring([analysis])
        return analysis

    def analysis(self, analysis_id: int) -> Analysis:
        with database().read() as session:
            return session.get_one(Analysis, analysis_id)

    def wait(self, analysis_ids: list[int], *states: AnalysisState, timeout: float = 60) -> list[Analysis]:
        """The analyses, once all of them are in one of ``states`` (terminal ones when none is given)."""
        wanted = states or (AnalysisState.DONE, AnalysisState.QUARANTINED)
        deadline = time.monotonic() + timeout
        while True:
            with database().read() as session:
                wished = select(Analysis).where(Analysis.id.in_(analysis_ids)).order_by(Analysis.id)
                found = list(session.scalars(wished))
            if all(analysis.state in wanted for analysis in found):
                return found
            if time.monotonic() > deadline:
                states_now = [(a.id, a.state.value, a.attempts, a.reason) for a in found]
                raise AssertionError(f"{states_now}\n{self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.logs.glob("*.log")))

    def kill(self, process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        """Signal a role with all its children."""
        os.killpg(process.pid, number)

    def stop_between_writes(self, process: subprocess.Popen[bytes]) -> None:
        """SIGSTOP a role, but not while it holds SQLite's only write lock: then nobody could go on."""
        for _ in range(100):
            self.kill(process, signal.SIGSTOP)
            with sqlite3.connect(settings().data_dir / "sonomark.sqlite", timeout=0.2) as probe:
                try:
                    probe.execute("BEGIN IMMEDIATE").connection.rollback()
                    return
                except sqlite3.OperationalError:
                    self.kill(process, signal.SIGCONT)
                    time.sleep(0.05)
        raise AssertionError("the role writes all the time")

    def stop_all(self) -> None:
        for process in self.processes:
            if process.poll() is None or _group_lives(process.pid):
                for number in (signal.SIGCONT, signal.SIGKILL):
                    try:
                        os.killpg(process.pid, number)
                    except ProcessLookupError:
                        break
            process.wait(30)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
