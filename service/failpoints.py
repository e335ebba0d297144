"""Faults on demand: tests kill, stall or break a running process at a named point.

``fp("receive.before_fsync")`` does nothing unless SONOMARK_FAILPOINTS names the point, for instance
``receive.before_fsync=kill@3;receive.before_commit=sleep:500``. A process refuses to start with failpoints
set unless SONOMARK_TESTING is on too. Actions: ``kill``, ``stop``, ``eio``, ``enospc``, ``sleep:MILLISECONDS``;
``@N`` strikes at the Nth passage only, ``@N+`` from the Nth on, nothing means every passage.
"""

import errno
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from service.errors import ConfigurationError
from service.settings import settings

_passages: Counter[str] = Counter()


@dataclass(frozen=True)
class Fault:
    """One action and the passages it strikes at."""

    action: str
    first: int
    last: int | None

    @classmethod
    def parse(cls, text: str) -> "Fault":
        action, _, when = text.strip().partition("@")
        if not when:
            return cls(action, 1, None)
        number = int(when.removesuffix("+"))
        return cls(action, number, None if when.endswith("+") else number)

    def strikes(self, passage: int) -> bool:
        return passage >= self.first and (self.last is None or passage <= self.last)

    def strike(self) -> None:
        kind, _, argument = self.action.partition(":")
        match kind:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "eio":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            case "enospc":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            case "sleep":
                time.sleep(int(argument) / 1000)
            case _:
                raise ConfigurationError(
                    f"Unknown failpoint action '{self.action}'.",
                    cure="Write one of kill, stop, eio, enospc, sleep:MILLISECONDS.",
                )


@lru_cache
def _faults() -> dict[str, Fault]:
    chosen = settings().failpoints
    if chosen and not settings().testing:
        raise ConfigurationError(
            "SONOMARK_FAILPOINTS is set outside a test.",
            cure="Unset it; it makes the process fail on purpose.",
        )
    pairs = (entry.partition("=") for entry in chosen.split(";") if entry.strip())
    return {name.strip(): Fault.parse(fault) for name, _, fault in pairs}


def fp(name: str) -> None:
    """A point of the program where a test may strike."""
    faults = _faults()
    if not faults:
        return
    fault = faults.get(name)
    if fault is None:
        return
    _passages[name] += 1
    if fault.strikes(_passages[name]):
        fault.strike()


def refuse_in_production() -> None:
    """Raise ConfigurationError when failpoints are set without SONOMARK_TESTING."""
    _faults()
