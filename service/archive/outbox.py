"""Objects that are durable on this machine and not yet in the bucket.

An object waits as a second name (a hard link) in the folder ``outbox``. The name goes away only after the bucket has
said that it keeps the bytes, so a process may be killed at any moment: the next one finds the names and goes on.
"""

import fcntl
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Event, Thread

from service import logs, telemetry
from service.archive.bucket import Bucket
from service.failpoints import fp

log = logs.get(__name__)

AT_ONCE = 8  # uploads
LOOK_S = 5.0  # how often a process without the lock, or with nothing to do, looks again
LONGEST_PAUSE_S = 60.0
UNREADABLE_S = 60.0  # between two tries to read what this machine's disk could not
UNFINISHED = ".new"
UNFINISHED_S = 3600.0  # nobody takes so long to give a file its second name: who began was killed


class Outbox:
    """The waiting objects of one archive folder. Several processes may add, one of them at a time uploads."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self._folder = folder
        self._bucket = bucket
        self._rung = Event()
        self._unreadable: dict[str, float] = {}  # until when, by this process's clock, they hold up no others
        self._thread: Thread | None = None
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, objects: Iterable[tuple[Path, str]]) -> None:
        """Give every file, already synced, its second name; the caller syncs `folder` afterwards or not at all."""
        for source, key in objects:
            if source.exists():
                aside = self._folder / f"{token_hex(8)}{UNFINISHED}"
                aside.hardlink_to(source)
                aside.replace(self._name(key))

    @property
    def folder(self) -> Path:
        return self._folder

    def find(self, key: str) -> Path | None:
        """The waiting file of this key."""
        path = self._name(key)
        return path if path.exists() else None

    def waiting(self) -> list[str]:
        """Keys of all objects that wait."""
        return [name.replace("~", "/") for name in self._names()]

    def backlog(self) -> tuple[int, float]:
        """How many objects wait, and for how many seconds the oldest has."""
        count, oldest = 0, time.time()
        for name in self._names():
            try:
                oldest = min(oldest, (self._folder / name).stat().st_ctime)
            except FileNotFoundError:
                continue
            count += 1
        return count, max(0.0, time.time() - oldest) if count else 0.0

    def ring(self) -> None:
        """There is something to upload."""
        self._rung.set()

    def start(self) -> None:
        """Upload from a daemon thread for as long as this process lives."""
        if self._thread is None:
            telemetry.ARCHIVE_OUTBOX.set_function(lambda: self.backlog()[0])
            telemetry.ARCHIVE_OUTBOX_AGE.set_function(lambda: self.backlog()[1])
            self._thread = Thread(target=self._run, name="outbox", daemon=True)
            self._thread.start()

    def upload(self) -> int:
        """Upload everything that waits now and can be read; how many objects went up.

        Raises:
            StorageError: the bucket did not take one of them; it and the others still wait.
        """
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload") as pool:
            return sum(pool.map(self._upload, self._names()))

    def _run(self) -> None:
        with (self._folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the process that uploads has ended
            with suppress(OSError):
                self._tidy()
            pause = 1.0
            while True:
                self._rung.clear()
                try:
                    self.upload()
                    pause = 1.0
                    self._rung.wait(LOOK_S)
                except Exception as error:  # noqa: BLE001 - nothing may end this thread: nobody else uploads
                    with suppress(OSError):
                        count, age = self.backlog()
                        log.warning("bucket away, objects wait", waiting=count, oldest_s=round(age), reason=str(error))
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_S)

    def _tidy(self) -> None:
        """Remove names that a killed process did not finish: with a second one a file never leaves the cache."""
        for path in self._folder.glob(f"*{UNFINISHED}"):
            if time.time() - path.stat().st_ctime > UNFINISHED_S:
                path.unlink(missing_ok=True)

    def _upload(self, name: str) -> int:
        path = self._folder / name
        if not path.exists() or self._unreadable.get(name, 0.0) > time.monotonic():
            return 0
        fp("archive.before_upload")
        try:
            self._bucket.put_file(path, name.replace("~", "/"))
        except OSError as error:  # of the file: what the bucket answers is none
            self._unreadable[name] = time.monotonic() + UNREADABLE_S
            log.error(
                "object cannot be read on its way to the bucket",
                key=name.replace("~", "/"),
                cause=error.strerror or type(error).__name__,
                cure="Look at this machine's disk (`dmesg`, `smartctl`); have the study sent again.",
            )
            return 0
        self._unreadable.pop(name, None)
        fp("archive.after_upload")
        path.unlink(missing_ok=True)
        return 1

    def _names(self) -> list[str]:
        return sorted(n for n in os.listdir(self._folder) if not n.startswith(".") and not n.endswith(UNFINISHED))  # noqa: PTH208

    def _name(self, key: str) -> Path:
        return self._folder / key.replace("/", "~")
