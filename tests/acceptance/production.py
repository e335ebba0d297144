"""What docker-compose.yml starts, started as processes: its commands, its settings, its secrets, its health checks.

Only what a container engine would give is given differently here: addresses, ports and folders. PostgreSQL and Redis
are the real ones, started with the arguments of the file.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import compose
from tests.faults.servers import postgres_programs
from tests.ports import free_port

PROFILES = {"cpu"}
ROLES = ("receive", "work-cpu", "sweep", "review")


class Production:
    """The services of docker-compose.yml on free ports of this machine."""

    def __init__(self, **variables: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sonomark-production-"))
        self.folder.chmod(0o755)  # PostgreSQL runs as another user and must reach its folder
        self.services = compose.services(variables)
        self.code: dict[str, Path] = {}  # where the code of a service lies, if it is not this checkout's
        self.ports = {name: free_port() for name in (*ROLES, "postgres", "redis", "dicom", "http")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        subprocess.run([compose.HOUSE / "deploy" / "make-secrets.sh", self.folder / "secrets"], check=True, stdout=-3)
        (self.folder / "archive").mkdir()
        self._token = ""

    def start(self) -> "Production":
        """Every service as soon as what it depends on is well, in the order that the file asks for."""
        self._initialise_postgres()
        for name in self._in_order():
            if name == "migrate":
                self.run_once(name)
            else:
                self.start_service(name)
                self.until(lambda name=name: self.healthy(name), 90, f"{name} healthy")  # type: ignore[misc]
        return self

    def start_service(self, name: str) -> None:
        command = self._command(name)
        user = _postgres_user() if name == "postgres" else None
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                env=self.environment(name),
                cwd=self.code.get(name, compose.HOUSE),
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
                group=user,
            )

    def stop_service(self, name: str, number: int = signal.SIGTERM, within_s: float = 60) -> int:
        """Signal the service as its engine would and wait for its end; SIGKILL ends its whole container."""
        process = self.processes[name]
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        return process.wait(within_s)

    def restart(self, name: str, number: int = signal.SIGTERM) -> None:
        self.stop_service(name, number)
        self.start_service(name)

    def run_once(self, name: str) -> None:
        """A service that does one thing and ends."""
        self.start_service(name)
        assert self.processes.pop(name).wait(120) == 0, self.log(name)

    def stop(self) -> None:
        for name in reversed(list(self.processes)):
            if self.processes[name].poll() is None:
                try:
                    self.stop_service(name, signal.SIGINT if name == "postgres" else signal.SIGTERM, 30)
                except subprocess.TimeoutExpired:
                    self.stop_service(name, signal.SIGKILL)
        shutil.rmtree(self.folder)

    def environment(self, name: str) -> dict[str, str]:
        """What the file gives the service and nothing else of ours."""
        given = {
            key: self._placed(name, str(value)) for key, value in self.services[name].get("environment", {}).items()
        }
        here = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
        }
        if name == "redis":
            here |= {
                "BROKER_PASSWORD_FILE": str(self._secrets(name) / "sonomark_broker_password"),
                "REDIS_ACL_FILE": str(self.folder / "users.acl"),
                "REDIS_FOLDER": str(self._made("redis")),
                "REDIS_PORT": str(self.ports["redis"]),
            }
        return here | given

    def healthy(self, name: str) -> bool:
        """The file's own health check, asked of this machine's ports."""
        assert self.processes[name].poll() is None, f"{name} ended:\n{self.log(name)}"
        kind, *command = self.services[name]["healthcheck"]["test"]
        placed = [self._placed(name, part) for part in command]
        if name == "postgres":
            placed = [str(postgres_programs() / placed[0]), *placed[1:], f"--port={self.ports['postgres']}"]
        if name == "redis":
            placed = [placed[0].replace("redis-cli", f"redis-cli -p {self.ports['redis']}")]
        asked = ["sh", "-c", placed[0]] if kind == "CMD-SHELL" else placed
        return subprocess.run(asked, env=self.environment(name), capture_output=True, timeout=30).returncode == 0

    def sonomark(self, *arguments: str) -> str:
        """A command in the dashboard's container."""
        command = [sys.executable, "-m", "service.cli", *arguments]
        answer = subprocess.run(
            command,
            env=self.environment("review"),
            cwd=self.code.get("review", compose.HOUSE),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def get(self, path: str) -> Any:
        """JSON of an API path."""
        self._token = self._token or self.sonomark("user", "token", "acceptance").splitlines()[-1]
        return json.loads(self.page("http", path, {"Authorization": f"Bearer {self._token}"}))

    def page(self, port: str, path: str, headers: dict[str, str] | None = None) -> str:
        url = f"http://127.0.0.1:{self.ports[port]}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=30) as answer:
            return str(answer.read().decode())

    def flow(self) -> dict[str, Any]:
        """The flow, or nothing while the dashboard or its database is away."""
        try:
            found: dict[str, Any] = self.get("/api/flow")
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}
        assert found["acknowledged"] == found["terminal"] + found["in_flight"], found
        return found

    def settled(self, acknowledged: int, within_s: float = 120) -> dict[str, Any]:
        """The flow once so many instances are in and none is in flight."""

        def all_terminal() -> dict[str, Any] | None:
            flow = self.flow()
            return flow if flow and flow["acknowledged"] >= acknowledged and not flow["in_flight"] else None

        found: dict[str, Any] = self.until(all_terminal, within_s, f"settled at {acknowledged}")
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """The service's log, each line one event."""
        return [json.loads(line) for line in self.log(name).splitlines() if line.startswith("{")]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, holds: Callable[[], Any], within_s: float, what: str) -> Any:
        deadline = time.monotonic() + within_s
        while not (found := holds()):
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {name}\n{self.log(name)[-1500:]}" for name in self.processes)
                pytest.fail(f"never {what}:\n{tails}")
            time.sleep(0.2)
        return found

    def archive(self) -> Path:
        return self.folder / "archive"

    def database_url(self) -> str:
        password = (self.folder / "secrets" / "sonomark_database_password").read_text()
        return f"postgresql+psycopg://sonomark:{password}@127.0.0.1:{self.ports['postgres']}/sonomark"

    def _in_order(self) -> list[str]:
        """Services of the chosen profiles, each after what it depends on; no proxy and no boards."""
        wanted = [
            name
            for name, service in self.services.items()
            if set(service.get("profiles", PROFILES)) & PROFILES and name not in ("nginx", "prometheus", "grafana")
        ]
        order: list[str] = []
        while len(order) < len(wanted):
            free = [n for n in wanted if n not in order and set(self.services[n].get("depends_on", ())) <= set(order)]
            assert free, "docker-compose.yml depends in a circle"
            order += free
        return order

    def _command(self, name: str) -> list[str]:
        command = list(self.services[name]["command"])
        if name == "postgres":
            socket_folder = self._made("run")
            _give(socket_folder)
            return [
                str(postgres_programs() / "postgres"),
                *command[1:],
                "-D",
                str(self.folder / "postgres"),
                "-p",
                str(self.ports["postgres"]),
                "-c",
                "listen_addresses=127.0.0.1",
                "-k",
                str(socket_folder),
            ]
        if name == "redis":
            return ["sh", str(compose.HOUSE / "deploy" / "redis" / "start.sh"), "--bind", "127.0.0.1"]
        return [sys.executable, "-m", "service.cli", *command[1:]]

    def _initialise_postgres(self) -> None:
        """What the image's entry point does at the first start."""
        data = self._made("postgres")
        _give(data)
        given = self.services["postgres"]["environment"]
        password = self.folder / "initial-password"
        shutil.copy(self.folder / "secrets" / "sonomark_database_password", password)
        command = [postgres_programs() / "initdb", "-D", data, "-U", given["POSTGRES_USER"], f"--pwfile={password}"]
        user = _postgres_user()
        options: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "user": user, "group": user, "cwd": "/"}
        subprocess.run([*command, *given["POSTGRES_INITDB_ARGS"].split()], **options)
        password.unlink()
        make = f'CREATE DATABASE "{given["POSTGRES_DB"]}"\n'.encode()
        subprocess.run([postgres_programs() / "postgres", "--single", "-D", data, "postgres"], input=make, **options)

    def _placed(self, name: str, text: str) -> str:
        """Addresses, ports and folders of this machine in place of the containers'."""
        ports = self.ports
        for there, here in {
            "postgres:5432": f"127.0.0.1:{ports['postgres']}",
            "redis:6379": f"127.0.0.1:{ports['redis']}",
            "receive:11112": f"127.0.0.1:{ports['dicom']}",
            "127.0.0.1:9100": f"127.0.0.1:{ports.get(name, 0)}",
            "127.0.0.1:8000": f"127.0.0.1:{ports['http']}",
            "/run/secrets": str(self._secrets(name)),
        }.items():
            text = text.replace(there, here)
        whole = {
            "/archive": str(self.folder / "archive"),
            "/data": str(self.folder / "data" / name),
            "11112": str(ports["dicom"]),
            "8000": str(ports["http"]),
            "9100": str(ports.get(name, 0)),
            "0.0.0.0": "127.0.0.1",
        }
        return whole.get(text, text)

    def _secrets(self, name: str) -> Path:
        """A folder with the secrets that the file hands to this service, and no others."""
        folder = self._made(f"secrets-of-{name}")
        for secret in self.services[name].get("secrets", []):
            if not (folder / secret).exists():
                shutil.copy(self.folder / "secrets" / secret, folder / secret)
        return folder

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _postgres_user() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    return next((user.pw_name for user in pwd.getpwall() if user.pw_name == "postgres"), "nobody")


def _give(folder: Path) -> None:
    if user := _postgres_user():
        shutil.chown(folder, user)
