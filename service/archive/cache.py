"""A folder of bytes that can be had again elsewhere: bounded, what was used longest ago goes first."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from threading import Lock

from service.settings import settings

PRUNE_AT = 1 / 16  # of the limit: so much is written between two looks at the whole folder
PART = ".part"


def always(_: os.stat_result) -> bool:
    """Every file may go."""
    return True


class Cache:
    """Files below ``folder`` that together take about ``limit`` bytes at most."""

    def __init__(self, folder: Path, limit: int, may_go: Callable[[os.stat_result], bool] = always) -> None:
        self.folder = folder
        self._limit = limit
        self._may_go = may_go
        self._written = 0
        self._lock = Lock()

    def bytes_of(self, name: str, make: Callable[[], bytes]) -> bytes:
        """The bytes kept under the relative path ``name``, made when they are not there.

        On a disk that is full or fails they are made each time.
        """
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError:
            data = make()
            with suppress(OSError):
                self._keep(path, data)
        else:
            touch(path)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_suffix(f".{token_hex(4)}{PART}")
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self.grew(len(data))

    def forget(self, name: str) -> None:
        """Remove everything kept below the relative path ``name``."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def grew(self, octets: int) -> None:
        """So many bytes were written; throws the oldest files away when it was enough to be worth a look."""
        with self._lock:
            self._written += octets
            if self._written < self._limit * PRUNE_AT:
                return
            self._written = 0
        self.prune()

    def prune(self) -> int:
        """Remove what was used longest ago until the limit is kept; the bytes that are left."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder) / name
                try:
                    facts = path.stat()
                except FileNotFoundError:
                    continue
                found.append((facts.st_mtime, facts, path))
        total = sum(facts.st_size for _, facts, _ in found)
        for _, facts, path in sorted(found, key=lambda each: each[0]):
            if total <= self._limit:
                break
            if self._may_go(facts):
                path.unlink(missing_ok=True)
                total -= facts.st_size
        return total


@lru_cache
def pictures() -> Cache:
    """Decoded frames for the dashboard, by digest. They are patient data, so nobody else may look in."""
    folder = settings().data_dir / "cache" / "frames"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Cache(folder, settings().cache_mb << 20)


def touch(path: Path) -> None:
    """Say that the file was used now."""
    with suppress(OSError):  # thrown away a moment ago, and whoever opens it will see; or the disk can be read alone
        os.utime(path)
