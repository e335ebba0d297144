"""The journal: where instances are durable until they have a file of their own in the archive.

Each association of a receiver writes into a lane of its own (`lanes`). A process holds its lanes by locks that end with
it, so that the next one finds what a crash left behind. Any process finds a record by its digest, without an index: the
lanes say themselves what is in them.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4

from service.archive import lanes
from service.archive.disk import fsync_folder, storage
from service.archive.lanes import LANE_BYTES, Entry, Lane
from service.errors import StorageError

FIRST_LANES = 8  # written at once, for a first burst
MOST_OF_FREE = 8  # lanes written before anybody needs them take at most this part of what is free on the disk
# An association takes a new lane when less than this is left of its own: few instances are larger.
LEAST_ROOM = LANE_BYTES // 2


class Journal:
    """The lanes in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._free: deque[Lane] = deque()
        self._own = 0
        self._most = 0
        self._lock = Lock()

    def open(self, most: int) -> list[tuple[Lane, list[Entry]]]:
        """Take up to ``most`` lanes into use; those in which ended processes left records come back with them."""
        left = []
        with storage(f"The journal {self.folder} cannot be opened"):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fsync_folder(self.folder.parent)
        self._most = most
        for path in sorted(self.folder.glob("*.lane")):
            descriptor = _locked(path)
            if descriptor is None:
                continue  # its owner lives
            found = [entry for entry in lanes.entries(descriptor) if not entry.void]
            if not found and (self._own >= most or os.fstat(descriptor).st_size != LANE_BYTES):
                path.unlink(missing_ok=True)
                os.close(descriptor)
                continue
            lane = Lane(path, descriptor)
            self._own += 1
            if found:
                lane.owed, lane.given_back = len(found), True
                left.append((lane, found))
            else:
                self._free.append(lane)
        return left

    def take(self) -> Lane | None:
        """A lane to write into; None when all are in use."""
        with self._lock:
            return self._free.popleft() if self._free else None

    def give_back(self, lane: Lane) -> None:
        """Nothing more is written into it; it begins anew when nothing in it is owed any more."""
        with lane.guard:
            lane.given_back = True
        self._renew_if_done(lane)

    def settled(self, lane: Lane) -> None:
        """One record of the lane is filed, or was never taken in."""
        with lane.guard:
            lane.owed -= 1
        self._renew_if_done(lane)

    @property
    def short(self) -> bool:
        """Whether more lanes are wanted now, busy or not."""
        return self._own < FIRST_LANES or len(self._free) <= self._own // 4

    @property
    def scarce(self) -> bool:
        """Whether the records should be filed now, busy or not."""
        return self._own >= self._most and len(self._free) <= self._most // 4

    def grow(self, free_bytes: int, *, busy: bool = False) -> bool:
        """Add a lane when the setting allows it and the disk has room; whether one was added.

        A burst shall find all of them written: a lane that is added while instances come is written twice before the
        first answer from it. So while the door is ``busy`` one is added only when few are left.
        """
        room = 2 * LANE_BYTES if self.short else MOST_OF_FREE * (self._own + 1) * LANE_BYTES
        if (busy and not self.short) or self._own >= self._most or free_bytes < room:
            return False
        path = self.folder / f"{uuid4().hex}.lane"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not os.fstat(descriptor).st_nlink:  # another process that starts took it for one left unfinished
                os.close(descriptor)
                return False
            zeros = bytes(1 << 20)
            with storage("The journal cannot grow"):
                for position in range(0, LANE_BYTES, len(zeros)):
                    if os.pwrite(descriptor, zeros, position) != len(zeros):
                        raise StorageError("The journal cannot grow: a write was short.")
                os.fsync(descriptor)
                fsync_folder(self.folder)
        except StorageError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        with self._lock:
            self._free.append(Lane(path, descriptor))
            self._own += 1
        return True

    def copy(self, sha256: str, target: Path) -> bool:
        """Write the DICOM file of this digest to ``target``, unsynced; False when no lane has it."""
        with self._found(sha256) as found:
            if found is None:
                return False
            descriptor, entry = found
            with storage("The journal cannot be read"):
                lanes.copy(descriptor, entry, target)
            # Its lane may have begun anew meanwhile: then the instance was filed before that.
            if lanes.entry_at(descriptor, entry.position) == entry:
                return True
        target.unlink()
        return False

    def data(self, sha256: str) -> bytes | None:
        """The DICOM file of this digest, None when no lane has it."""
        with self._found(sha256) as found:
            if found is None:
                return None
            descriptor, entry = found
            with storage("The journal cannot be read"):
                octets = lanes.data(descriptor, entry)
            return octets if lanes.entry_at(descriptor, entry.position) == entry else None

    def size(self, sha256: str) -> int | None:
        """Octets of the DICOM file of this digest, when a lane has it."""
        with self._found(sha256) as found:
            return found[1].octets if found else None

    def give_up(self, sha256: str) -> None:
        """What a person has deleted is not filed any more, and no crash brings it back."""
        while True:
            with self._found(sha256) as found:
                if found is None:
                    return
                lanes.void(*found)

    @contextmanager
    def _found(self, sha256: str) -> Iterator[tuple[int, Entry] | None]:
        for path in self.folder.glob("*.lane"):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                for entry in lanes.entries(descriptor):
                    if entry.sha256 == sha256 and not entry.void:
                        yield descriptor, entry
                        return
            finally:
                os.close(descriptor)
        yield None

    def _renew_if_done(self, lane: Lane) -> None:
        with lane.guard:
            if lane.owed or not lane.given_back:
                return
            lane.given_back = False  # whoever comes first renews it
        try:
            # One that a backup copied, or a repair cut off, has not all of its blocks.
            whole = os.fstat(lane.descriptor).st_size == LANE_BYTES
            if lane.sound and whole and self._own <= self._most:
                lane.renew()
                with self._lock:
                    self._free.append(lane)
                return
        except StorageError:
            pass
        with suppress(OSError):  # on a disk that takes nothing it stays, and the next start files it again
            lane.path.unlink(missing_ok=True)
        os.close(lane.descriptor)
        with self._lock:
            self._own -= 1


def _locked(path: Path) -> int | None:
    """The opened lane, when nobody else has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not os.fstat(descriptor).st_nlink:  # its owner removed it a moment ago: what is written there has no name
        os.close(descriptor)
        return None
    return descriptor
