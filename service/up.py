"""Everything in one go: one process a role, watched, started again when it falls, stopped by one signal."""

import ctypes
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from service import logs
from service.errors import ConfigurationError, SonomarkError
from service.settings import Settings

# In the order an image meets them; stopped in the same order, so that the door closes first.
ROLES = ("receive", "work", "sweep", "review")
STOP_GRACE_S = 15.0
RESTART_PAUSE_S = 1.0
FALLS_ALLOWED = 5  # within FALLS_WINDOW_S; a role that keeps falling needs a person, not another start
FALLS_WINDOW_S = 60.0
PR_SET_PDEATHSIG = 1

log = logs.get(__name__)


@dataclass
class _Child:
    role: str
    process: subprocess.Popen[bytes]
    falls: list[float] = field(default_factory=list)


class Supervisor:
    """Starts every role as a process of its own and keeps them running until told to stop."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self._children: list[_Child] = []

    def start(self) -> None:
        for role in ROLES:
            self._children.append(_Child(role, self._spawn(role)))

    def watch(self) -> None:
        """Start again whatever has fallen; raises SonomarkError when a role falls again and again."""
        for child in self._children:
            status = child.process.poll()
            if status is None:
                continue
            log.error("role fell", fallen=child.role, status=status)
            now = time.monotonic()
            child.falls = [fall for fall in child.falls if now - fall < FALLS_WINDOW_S] + [now]
            if len(child.falls) >= FALLS_ALLOWED:
                raise SonomarkError(
                    f"`sonomark {child.role}` fell {len(child.falls)} times within a minute.",
                    cure="Its last lines above say why; `sonomark doctor` checks the usual causes.",
                )
            time.sleep(RESTART_PAUSE_S)
            child.process = self._spawn(child.role)

    def stop(self) -> None:
        """SIGTERM to every role, door first, and SIGKILL to what has not left after a grace period."""
        for child in self._children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_GRACE_S
        for child in self._children:
            try:
                child.process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("role did not stop and was killed", killed=child.role)
                child.process.kill()
                child.process.wait()

    def _spawn(self, role: str) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches the supervisor alone, which then stops the roles in order.
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "service.cli", role],
            env=self._environment,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )


def _die_with_parent() -> None:
    """A killed supervisor must not leave its roles holding the ports."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does; so does SIGINT where a script started us with it ignored."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def address(settings: Settings) -> str:
    """Where the dashboard answers."""
    host = "127.0.0.1" if settings.http_host in ("0.0.0.0", "::") else settings.http_host  # noqa: S104
    scheme = "https" if settings.http_certificate else "http"
    return f"{scheme}://{host}:{settings.http_port}"


def public_address(settings: Settings) -> str:
    """Where people open the dashboard: behind a proxy that is another address than the one it answers at."""
    return settings.public_url.rstrip("/") or address(settings)


def environment(settings: Settings) -> dict[str, str]:
    """What the roles need beyond the caller's own environment; makes the data folder."""
    make_data_dir(settings)
    return {
        "SONOMARK_DATA_DIR": str(settings.data_dir.resolve()),
        "SONOMARK_ROLE_SET": ",".join(ROLES),
    }


def make_data_dir(settings: Settings) -> None:
    """Raises ConfigurationError where the folder cannot be made."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {settings.data_dir} cannot be made: {error.strerror or error}.",
            cure="Set SONOMARK_DATA_DIR to a folder that this account may write to.",
        ) from error


def require_free_ports(settings: Settings) -> None:
    """Raises ConfigurationError when another program, perhaps another Sonomark, answers where a role is to listen."""
    doors = {"SONOMARK_DICOM_PORT": settings.dicom_port, "SONOMARK_HTTP_PORT": settings.http_port}
    for setting, port in doors.items():
        with socket.socket() as probe:
            probe.settimeout(1)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        if taken:
            raise ConfigurationError(
                f"Port {port} is in use already.", cure=f"Stop what uses it, or set {setting} to another."
            )


def ready(settings: Settings) -> bool:
    """Whether every role is up and its dependencies answer."""
    # Its certificate is for the name by which people call it, and perhaps of the hospital's own authority.
    unnamed = ssl._create_unverified_context()  # noqa: S323 - our own process, on this machine
    try:
        with urllib.request.urlopen(f"{address(settings)}/readyz", timeout=5, context=unnamed) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until_ready(settings: Settings, supervisor: Supervisor, *, timeout_s: float = 120) -> None:
    """Return once ``/readyz`` answers 200; raises ConfigurationError when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not ready(settings):
        supervisor.watch()
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"Not every role was ready within {timeout_s:.0f} s.",
                cure=f"Ask {address(settings)}/readyz which one is missing, and read its lines above.",
            )
        time.sleep(0.25)
