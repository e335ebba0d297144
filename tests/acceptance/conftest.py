"""A whole house of real processes on free ports, and the peers that speak to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.parts import Parts
from tests.ports import free_port
from tests.tiny_network import write_weights

READY_S = 90


@dataclass
class House:
    """`sonomark up` as a user starts it; everything is asked from outside."""

    data: Path
    environment: dict[str, str] = field(default_factory=dict)
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _token: str = ""

    @property
    def variables(self) -> dict[str, str]:
        return {
            **os.environ,
            "SONOMARK_DATA_DIR": str(self.data),
            "SONOMARK_DICOM_PORT": str(self.dicom_port),
            "SONOMARK_DICOM_HOST": "127.0.0.1",
            "SONOMARK_HTTP_PORT": str(self.http_port),
            "SONOMARK_STUDY_SETTLE_S": "1",
            **self.environment,
        }

    @property
    def log(self) -> Path:
        return self.data.parent / "house.log"

    def start(self, *arguments: str) -> "House":
        self.data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "up", *arguments],
                env=self.variables,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.until(lambda: self.status("/readyz") == 200, READY_S, "ready")
        return self

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=40)

    def sonomark(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "service.cli", *arguments],
            env=self.variables,
            check=check,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def pids(self, role: str) -> list[int]:
        """The processes of a role, children of its main process included."""
        assert self.process is not None
        mains = [child for child in psutil.Process(self.process.pid).children() if _runs(child, role)]
        return [one.pid for main in mains for one in (main, *main.children(recursive=True))]

    def kill(self, role: str) -> None:
        for pid in self.pids(role):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def get(self, path: str) -> Any:
        """JSON of an API path, asked with a bearer token of the machine's own."""
        if not self._token:
            self._token = self.sonomark("user", "token", "acceptance").stdout.splitlines()[-1]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def until(self, holds: Callable[[], Any], within_s: float, what: str) -> Any:
        """Wait for a condition; a dead supervisor or the deadline fails the test with the house's last lines."""
        deadline = time.monotonic() + within_s
        while not (result := holds()):
            dead = self.process is not None and self.process.poll() is not None
            if dead or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""
                pytest.fail(f"never {what}{' (the supervisor has ended)' if dead else ''}:\n{tail}")
            time.sleep(0.1)
        return result

    def settled(self, acknowledged: int, within_s: float = 120) -> dict[str, Any]:
        """The flow once ``acknowledged`` instances are in and none is in flight; the equation holds meanwhile."""

        def all_terminal() -> dict[str, Any] | None:
            flow: dict[str, Any] = self.get("/api/flow")
            assert flow["acknowledged"] == flow["terminal"] + flow["in_flight"], flow
            return flow if flow["acknowledged"] >= acknowledged and flow["in_flight"] == 0 else None

        result: dict[str, Any] = self.until(all_terminal, within_s, f"settled at {acknowledged} instances")
        return result


def _runs(process: psutil.Process, role: str) -> bool:
    try:
        return process.cmdline()[-1:] == [role]
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False


@pytest.fixture
def new_house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """Makes houses that are stopped when the test ends."""
    houses: list[House] = []

    def make(**environment: str) -> House:
        houses.append(House(tmp_path / f"house{len(houses)}" / "data", environment))
        return houses[-1]

    yield make
    for house in houses:
        if house.process is not None and house.process.poll() is None:
            house.stop()


@pytest.fixture
def dcmsend() -> Callable[..., subprocess.CompletedProcess[str]]:
    """DCMTK's sender, without Nagle's delay."""
    if shutil.which("dcmsend") is None:
        pytest.skip("needs DCMTK: apt-get install dcmtk")

    def run(port: int, *paths: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["dcmsend", "-aet", "MODALITY", "-aec", "SONOMARK", *options, "127.0.0.1", str(port), *paths],
            env={**os.environ, "TCP_NODELAY": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a few KB for which whatever is pure yellow is a caliper."""
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """A migrated SQLite database without rows, to be copied."""
    folder = tmp_path_factory.mktemp("empty")
    Parts(folder / "data", folder / "logs").migrate()
    return folder / "data" / "sonomark.sqlite"


@pytest.fixture
def make_parts(tmp_path: Path, weights: Path, empty_database: Path) -> Iterator[Callable[..., Parts]]:
    """Makes houses whose parts are felled one by one: ``make_parts(data=FOLDER, LEASE_S="1")``."""
    made: list[Parts] = []

    def make(data: Path | None = None, code: Path | None = None, **settings: str) -> Parts:
        folder = tmp_path / f"parts{len(made)}"
        parts = Parts(data or folder / "data", folder / "logs", {"NETWORK": str(weights), **settings}, code)
        for one in (parts.data, parts.logs):
            one.mkdir(parents=True, exist_ok=True)
        if "DATABASE_URL" not in settings:
            shutil.copy(empty_database, parts.data)
            subprocess.run(["sync", parts.data / empty_database.name, parts.data, parts.data.parent], check=True)
        made.append(parts)
        return parts

    yield make
    for parts in made:
        parts.stop()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Chosen anew each time and printed; SONOMARK_FAULT_SEED replays a red run."""
    chosen = int(os.environ.get("SONOMARK_FAULT_SEED") or time.time_ns() % 1_000_000)
    print(f"replay: SONOMARK_FAULT_SEED={chosen} python -m pytest '{request.node.nodeid}'")
    return chosen
