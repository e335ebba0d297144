"""A house whose parts are processes of their own, started, felled and frozen one by one; nothing restarts them."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults.inventory import Inventory, take_inventory
from tests.faults.ledger import Ledger
from tests.ports import free_port

READY_S = 90


class NeverSo(Exception):
    """What a test waited for did not come: no promise was broken, and nothing was shown."""


@dataclass
class Parts:
    """``receive``, ``work``, ``sweep`` and ``review`` over one data folder, as production starts them."""

    data: Path
    logs: Path  # outside of the file system that is made to fail
    settings: dict[str, str] = field(default_factory=dict)
    code: Path | None = None  # another tree of the product than this one
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SONOMARK_")}
        chosen = {
            "DATA_DIR": str(self.data),
            "DICOM_PORT": str(self.dicom_port),
            "DICOM_HOST": "127.0.0.1",
            "HTTP_PORT": str(self.http_port),
            "DISK_RESERVE_MB": "0",
            "JOURNAL_MB": "96",  # a receiver at rest writes all of it beforehand
            "STUDY_SETTLE_S": "0.5",
            "SWEEP_INTERVAL_S": "0.3",
            "LEASE_S": "3",
            "WORKERS": "1",
            "TESTING": "1",
            **self.settings,
        }
        if self.code is not None:
            clean["PYTHONPATH"] = str(self.code)
        return clean | {f"SONOMARK_{name}": value for name, value in chosen.items()}

    @property
    def database_url(self) -> str:
        return self.settings.get("DATABASE_URL") or f"sqlite:///{self.data}/sonomark.sqlite"

    @property
    def archive_folder(self) -> Path:
        return Path(self.settings.get("ARCHIVE_URL") or self.data / "archive")

    def migrate(self) -> "Parts":
        self.data.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.sonomark("migrate")
        return self

    def sonomark(self, *arguments: str, status: int = 0) -> str:
        answer = subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments],
            env=self.environment,
            cwd=self.code,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == status, answer.stdout + answer.stderr
        return answer.stdout

    def start(
        self, part: str, *, name: str = "", prefix: Sequence[str] = (), wait: bool = True, **settings: str
    ) -> int:
        """Start a part, under ``prefix`` (strace …) and with further settings; its process id.

        A second one of the same part goes by another ``name``. Settings that begin with ``_`` are variables of the
        environment as they are, without that ``_``.
        """
        name = name or part
        assert name not in self.processes, f"{name} runs already"
        variables = {f"SONOMARK_{key}": value for key, value in settings.items() if not key.startswith("_")}
        plain = {key[1:]: value for key, value in settings.items() if key.startswith("_")}
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*prefix, sys.executable, "-m", "service.cli", part],
                env=self.environment | variables | plain,
                cwd=self.code,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait and part in ("receive", "review"):
            port = self.dicom_port if part == "receive" else self.http_port
            self.until(lambda: listens(port), READY_S, f"{part} listening")
        return self.processes[name].pid

    def kill(self, part: str, number: int = signal.SIGKILL) -> None:
        """Signal a part with all its children; SIGKILL also waits for its end."""
        process = self.processes[part]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if number == signal.SIGKILL:
            self.gone(part)

    def freeze(self, part: str) -> None:
        """SIGSTOP, but not while the part holds SQLite's only write lock: then nobody could go on."""
        deadline = time.monotonic() + 30
        while True:
            self.kill(part, signal.SIGSTOP)
            with closing(sqlite3.connect(self.data / "sonomark.sqlite", timeout=0.2)) as probe:
                try:
                    probe.execute("BEGIN IMMEDIATE").connection.rollback()
                    return
                except sqlite3.OperationalError:
                    self.kill(part, signal.SIGCONT)
                    assert time.monotonic() < deadline, f"{part} writes all the time"
                    time.sleep(0.05)

    def terminate(self, part: str, within_s: float = 40) -> int:
        process = self.processes[part]
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{part} does not stop\n{self.tails()}") from None
        del self.processes[part]
        return status

    def gone(self, part: str, within_s: float = 30) -> None:
        """Wait until a part has ended, with all its children."""
        process = self.processes.pop(part)
        process.wait(within_s)
        deadline = time.monotonic() + within_s
        while _group(process.pid):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"children of {part} live on"
            time.sleep(0.02)

    def runs(self, part: str) -> bool:
        return part in self.processes and self.processes[part].poll() is None

    def stop(self) -> None:
        """End everything, whatever state it is in."""
        for part in list(self.processes):
            for number in (signal.SIGCONT, signal.SIGKILL):
                self.kill(part, number)

    def listens(self) -> bool:
        """Whether the door takes connections."""
        return listens(self.dicom_port)

    def log(self, part: str) -> Path:
        return self.logs / f"{part}.log"

    def inventory(self) -> Inventory:
        return take_inventory(self.archive_folder, self.database_url)

    def token(self) -> str:
        return self.sonomark("user", "token", "faults").splitlines()[-1]

    def until(self, holds: Callable[[], object], within_s: float, what: str) -> None:
        """Wait for a condition; a part that ends unasked, or the deadline, is an error."""
        deadline = time.monotonic() + within_s
        while not holds():
            ended = [part for part in self.processes if not self.runs(part)]
            if ended or time.monotonic() > deadline:
                raise NeverSo(f"never {what}; ended {ended}\n{self.tails()}")
            time.sleep(0.05)

    def tails(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.logs.glob("*.log"))
        )

    def new_ledger(self, name: str) -> Ledger:
        return Ledger(self.logs / f"{name}.ledger")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _group(number: int) -> bool:
    """Whether any process of this group still runs; one that waits to be reaped does not."""
    for pid in psutil.pids():
        with suppress(ProcessLookupError, FileNotFoundError, psutil.NoSuchProcess):
            if os.getpgid(pid) != number:
                continue
            # The first thread may be one already while another still holds its files and its port.
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE or len(os.listdir(f"/proc/{pid}/task")) > 1:  # noqa: PTH208
                return True
    return False
