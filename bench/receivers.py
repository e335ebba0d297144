"""Receivers to measure, each a process of its own on a free loopback port."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from tests.ports import free_port


class Receiver:
    """A C-STORE SCP under test."""

    name = ""
    ae_title = "ANY"
    durable = True  # on disk before Success

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    def command(self) -> list[str]:
        """How to start it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {"TCP_NODELAY": "1"}

    def __enter__(self) -> "Receiver":
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), env=os.environ | self.environment(), stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    self.come_to_rest()
                    return self
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start:\n{(self.folder / 'log').read_text(errors='replace')[-2000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time of the receiver and its children so far, those that have ended too."""
        process = psutil.Process(self.pid)
        own = process.cpu_times()
        spent = own.user + own.system + own.children_user + own.children_system
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it has just ended, and counts among those that have
                times = child.cpu_times()
                spent += times.user + times.system
        return spent

    def come_to_rest(self) -> None:
        """Wait until what the receiver does of its own accord, at its start or after receiving, has ended."""
        deadline = time.monotonic() + 30
        before, quiet = self.cpu_seconds(), 0
        while quiet < 3 and time.monotonic() < deadline:
            time.sleep(0.5)
            now = self.cpu_seconds()
            quiet = quiet + 1 if now - before < 0.02 else 0
            before = now


class Sonomark(Receiver):
    """Ours, as `sonomark receive` runs it on the embedded default: fsync and commit before Success."""

    name = "sonomark"
    ae_title = "SONOMARK"

    def command(self) -> list[str]:
        start = (
            "from service.db.session import database; from service.db.tables import Base;"
            "Base.metadata.create_all(database().engine);"
            "from service.receive.scp import serve; serve()"
        )
        return [sys.executable, "-c", start]

    def environment(self) -> dict[str, str]:
        return {
            "SONOMARK_DATA_DIR": str(self.folder / "data"),
            "SONOMARK_DICOM_PORT": str(self.port),
            "SONOMARK_DICOM_HOST": "127.0.0.1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        }

    def __enter__(self) -> "Receiver":
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        return super().__enter__()
