"""Filing: instances leave the journal for files of their own, many at once and after they were acknowledged.

A record's place in its lane is given free only when its file, its name and its folder are on disk.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from service import logs
from service.archive import lanes
from service.archive.disk import storage
from service.archive.lanes import Entry, Lane
from service.archive.store import ArchiveStore, instance_key, made_of
from service.errors import DiskFault, SonomarkError
from service.failpoints import fp

log = logs.get(__name__)

QUIET_S = 0.25  # without an arrival: then the disk is free for filing
OLDEST_S = 3.0  # nothing waits much longer than this, however busy the door is
BATCH = 128
RETRY_S = 5.0
UNREADABLE_S = 60.0  # between two tries to read what the disk could not


class Waiting(NamedTuple):
    """One committed record that has no file of its own yet."""

    lane: Lane
    entry: Entry
    since: float
    recovered: bool = False  # found after a crash: whether it was written whole is for its digest to say

    @property
    def key(self) -> str:
        return instance_key(self.entry.sha256)


class Filing:
    """Files records from a thread of its own."""

    def __init__(self, archive: ArchiveStore, failed: Callable[[Exception], None]) -> None:
        self._archive = archive
        self._failed = failed  # told of every failure, for it may be the disk's
        self._journal = archive.journal
        self._waiting: deque[Waiting] = deque()
        self._aside: list[Waiting] = []  # which the disk could not read: they hold up no others
        self._aside_until = 0.0
        self._last = 0.0  # when the newest one was added
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="filing", daemon=True)

    def start(self, most_lanes: int, reserve_bytes: int) -> None:
        """Open the journal, file what a crash left in it, and go on filing."""
        self._reserve = reserve_bytes
        for lane, entries in self._journal.open(most_lanes):
            log.warning("records left in the journal", lane=lane.path.name, records=len(entries))
            self._waiting.extend(Waiting(lane, entry, 0.0, recovered=True) for entry in entries)
        try:
            while self._file_some():
                pass
            self._grow()
        except SonomarkError as error:
            self._failed(error)
            log.error("filing put off", reason=str(error), cure=error.cure, waiting=len(self._waiting))
        self._thread.start()

    def add(self, lane: Lane, entry: Entry) -> None:
        """The record is committed. Never waits and never raises."""
        self._last = time.monotonic()
        self._waiting.append(Waiting(lane, entry, self._last))

    def stop(self, timeout: float) -> bool:
        """File everything and end; False when time ran out, and the next start goes on."""
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._waiting or not self._stopping.is_set():
            try:
                if not (self._journal.short and self._grow()) and not self._file_some():
                    self._grow()  # one at a time beforehand: the disk is not ours alone
                    self._stopping.wait(QUIET_S / 2)
            except Exception as error:  # noqa: BLE001 - nothing may end this thread: the lanes would never be free again
                self._failed(error)
                log.error("filing put off", reason=str(error) or type(error).__name__, waiting=len(self._waiting))
                if self._stopping.wait(RETRY_S):
                    return

    def _grow(self) -> bool:
        # What waits gives its lanes back soon: a burst is no reason to write new ones, unless hardly any are left.
        busy = bool(self._waiting) or time.monotonic() - self._last < QUIET_S
        return self._journal.grow(self._archive.free_bytes() - self._reserve, busy=busy)

    def _file_some(self) -> bool:
        now = time.monotonic()
        if self._aside and now > self._aside_until:
            self._waiting.extend(self._aside)
            self._aside.clear()
        if not self._waiting:
            return False
        busy = now - self._last < QUIET_S and now - self._waiting[0].since < OLDEST_S
        if busy and not self._journal.scarce and not self._stopping.is_set():
            return False
        batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
        unreadable = self._file(batch)
        for _ in batch:
            self._waiting.popleft()
        if unreadable:
            self._aside += unreadable
            self._aside_until = now + UNREADABLE_S
            raise next(iter(unreadable.values()))
        return True

    def _file(self, batch: list[Waiting]) -> dict[Waiting, DiskFault]:
        """Make every record of the batch a file, durably, and give its place in the lane free.

        Those that the disk could not read come back, with what it said.
        """
        fp("filing.before_copy")
        copies: list[tuple[Path, Waiting]] = []
        unreadable: dict[Waiting, DiskFault] = {}
        try:
            for each in batch:
                try:
                    with storage("The archive cannot take an instance out of the journal"):
                        if self._given_up(each):
                            continue
                        copies.append((self._archive.incoming(), each))
                        lanes.copy(each.lane.descriptor, each.entry, copies[-1][0])
                except DiskFault as fault:
                    unreadable[each] = fault
            for temporary, _ in [copy for copy in copies if copy[1] in unreadable]:
                temporary.unlink(missing_ok=True)
            copies = [copy for copy in copies if copy[1] not in unreadable]
            self._publish(copies)
        except BaseException:
            for temporary, _ in copies:
                temporary.unlink(missing_ok=True)
            raise
        fp("filing.before_recycling")
        for each in batch:
            if each not in unreadable:
                self._journal.settled(each.lane)
        return unreadable

    def _publish(self, copies: list[tuple[Path, Waiting]]) -> None:
        if not copies:
            return
        made = [made_of(temporary) for temporary, _ in copies]
        self._archive.file_all([(temporary, each.key) for temporary, each in copies])
        gone = [self._given_up(each) for _, each in copies]
        kept = {each.key for (_, each), given_up in zip(copies, gone, strict=True) if not given_up}
        for (_, each), file, given_up in zip(copies, made, gone, strict=True):
            if given_up and each.key not in kept:
                self._archive.take_back(each.key, file)

    def _given_up(self, each: Waiting) -> bool:
        """Deleted by a person meanwhile, or never whole: then nobody was told of it."""
        if lanes.entry_at(each.lane.descriptor, each.entry.position) != each.entry:
            return True
        if each.recovered and _digest(each.lane.descriptor, each.entry) != each.entry.sha256:
            log.error("a record of the journal is damaged", key=each.key, cure="If a row names it, send it again.")
            return True
        return False


def _digest(descriptor: int, entry: Entry) -> str:
    digest, start = sha256(), entry.start + entry.head_octets
    while start < entry.stop:
        chunk = os.pread(descriptor, min(1 << 20, entry.stop - start), start)
        if not chunk:  # the lane was cut short
            break
        digest.update(chunk)
        start += len(chunk)
    return digest.hexdigest()
