"""Lanes: files of a fixed size whose blocks are written again and again, one record behind the other.

A new file costs the file system three commits of its own journal, for its blocks, its name and its folder: 6 ms where
writing over blocks that a file has already costs 0.1 ms. A record is a whole DICOM file behind a short head, and begins
on a page of its own, so that no later write touches a page of one that has been acknowledged.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from secrets import token_bytes
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from service.archive.disk import begin_writing, storage, write_all
from service.errors import StorageError

PAGE = mmap.PAGESIZE
LANE_BYTES = 16 << 20
HEAD_BYTES = 128
BEGIN_BYTES = 256 << 10  # so much of a record is there before the disk begins with it
COPIED_AT_ONCE = 256 << 10

# Magic, generation, octets of the DICOM file, octets in front of its data set, digest of the data set.
_HEAD = struct.Struct("<8s16sQI32s")
_MAGIC = b"SONOLANE"
_VOID = HEAD_BYTES - 1  # a byte that is not zero here: given up by a person
Data = bytes | bytearray | memoryview


class LaneFull(Exception):
    """The record does not fit into what is left of the lane."""


class Entry(NamedTuple):
    """A record as it is found in a lane."""

    position: int  # of its head
    generation: bytes  # another one whenever the lane begins anew, and nobody's to guess
    octets: int  # of the DICOM file
    head_octets: int  # of the DICOM file, in front of its data set
    sha256: str  # of the data set
    void: bool = False

    @property
    def start(self) -> int:
        return self.position + HEAD_BYTES

    @property
    def stop(self) -> int:
        return self.start + self.octets


class Lane:
    """One lane in the hands of this process. One record is open at a time."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.sound = True  # no write and no sync of it ever failed
        self.owed = 0  # records that are open, or durable and not filed yet
        self.given_back = False
        self.taken = False  # by a record that is neither handed on nor dropped yet
        self.guard = Lock()
        self.generation = token_bytes(16)
        self._position = 0

    def begin(self, head: bytes) -> "Record":
        """Open a record; ``head`` is what stands in front of the data set."""
        record = Record(self, self._position, head)
        self.taken = True
        with self.guard:
            self.owed += 1
        return record

    def begins_at(self, position: int) -> None:
        """The next record begins on the first page behind ``position``."""
        self._position = -(-position // PAGE) * PAGE

    def room(self) -> int:
        """Octets of a DICOM file that would still fit."""
        return LANE_BYTES - self._position - HEAD_BYTES

    def encode(self, octets: int, head_octets: int, sha256: str) -> bytes:
        """The head of a record of this lane's present generation."""
        raw = _HEAD.pack(_MAGIC, self.generation, octets, head_octets, bytes.fromhex(sha256))
        # To the last byte: what a recycled block held there before must not be taken for the mark of a void record.
        return (raw + struct.pack("<I", crc32(raw))).ljust(HEAD_BYTES, b"\x00")

    def renew(self) -> None:
        """Begin anew: what was in it is in the archive. On disk on return, or an older record could come back.

        Raises:
            StorageError: the lane is of no more use.
        """
        self.generation, self._position, self.given_back = token_bytes(16), 0, False
        self.put(0, bytes(PAGE))
        self.sync()

    def put(self, position: int, *parts: Data) -> None:
        """Write ``parts`` from ``position`` on. No block is missing, so a short write is a fault."""
        octets = sum(map(len, parts))
        try:
            with storage("The journal cannot take an instance in"):
                written = os.pwritev(self.descriptor, parts, position)
            if written != octets:
                raise StorageError(f"Of {octets} bytes only {written} were written to the journal.")
        except StorageError:
            self.sound = False
            raise

    def sync(self) -> None:
        """Put everything written on disk. One failure and the lane takes nothing more: the kernel drops the pages
        and would report success the next time."""
        try:
            with storage("The journal cannot put an instance on disk"):
                os.fdatasync(self.descriptor)
        except StorageError:
            self.sound = False
            raise


class Record:
    """One DICOM file being written into a lane."""

    def __init__(self, lane: Lane, position: int, head: bytes) -> None:
        self.lane = lane
        self.position = position
        self.start = position + HEAD_BYTES
        self.stop = self.start + len(head)
        self.head_octets = len(head)
        self.sha256 = ""
        self._held: tuple[Data, ...] = (head,)  # not written yet, for each write costs a call of the system
        self._begun = position  # the disk has been told to write what lies before

    @property
    def octets(self) -> int:
        return self.stop - self.start

    def write(self, data: Data) -> None:
        """Append.

        Raises:
            LaneFull: there is no room; nothing was written. StorageError: the lane failed.
        """
        self._append(data)
        self._put_held()
        if self.stop - self._begun >= BEGIN_BYTES:
            self._begin_writing(self.stop // PAGE * PAGE)

    def hold(self, data: Data) -> None:
        """Append the whole data set, which stays as it is until the record is sealed.

        Raises:
            LaneFull: there is no room.
        """
        self._append(data)

    def seal(self, sha256: str) -> None:
        """The data set is complete: it is written, the disk begins with it, and after a `sync` a crash leaves it."""
        self.sha256 = sha256
        head = self.lane.encode(self.octets, self.head_octets, sha256)
        if self.stop == self.start + sum(map(len, self._held)):
            self.lane.put(self.position, head, *self._held)
        else:
            self._put_held()
            self.lane.put(self.position, head)
        self._held = ()
        self.lane.begins_at(self.stop)
        self._begin_writing(self.stop)

    def hand_on(self) -> Entry:
        """The sealed record, as it will be found in its lane; the next one goes behind it."""
        self.lane.taken = False
        return Entry(self.position, self.lane.generation, self.octets, self.head_octets, self.sha256)

    def drop(self) -> None:
        """The instance was not taken in: the next record goes over this one."""
        try:
            if self.sha256 and self.lane.sound:
                self.lane.put(self.position, bytes(HEAD_BYTES))
        finally:
            self.lane.begins_at(self.position)
            self.lane.taken = False

    def view(self) -> mmap.mmap:
        """The record, mapped from ``position`` on."""
        self._put_held()
        return mmap.mmap(self.lane.descriptor, self.stop - self.position, offset=self.position, access=mmap.ACCESS_READ)

    def copy_to(self, target: int) -> None:
        """Append the DICOM file, as far as it is there, to the file ``target``."""
        self._put_held()
        copied(self.lane.descriptor, self.start, self.stop, target)

    def _append(self, data: Data) -> None:
        if self.stop + len(data) > LANE_BYTES:
            raise LaneFull
        self._held = (*self._held, data)
        self.stop += len(data)

    def _put_held(self) -> None:
        held, self._held = self._held, ()
        if held:
            self.lane.put(self.stop - sum(map(len, held)), *held)

    def _begin_writing(self, stop: int) -> None:
        begin_writing(self.lane.descriptor, self._begun, stop)
        self._begun = stop


def entries(descriptor: int) -> Iterator[Entry]:
    """The sealed records of a lane's present generation, in their order."""
    position, generation = 0, None
    while position + HEAD_BYTES <= LANE_BYTES:
        entry = entry_at(descriptor, position)
        if entry is None or generation not in (None, entry.generation):
            return
        yield entry
        position, generation = -(-entry.stop // PAGE) * PAGE, entry.generation


def entry_at(descriptor: int, position: int) -> Entry | None:
    """The record whose head is at ``position``, when there is one."""
    raw = os.pread(descriptor, HEAD_BYTES, position)
    if len(raw) < HEAD_BYTES or raw[: len(_MAGIC)] != _MAGIC:
        return None
    (check,) = struct.unpack_from("<I", raw, _HEAD.size)
    if check != crc32(raw[: _HEAD.size]):
        return None
    _, generation, octets, head_octets, digest = _HEAD.unpack_from(raw)
    entry = Entry(position, generation, octets, head_octets, digest.hex(), bool(raw[_VOID]))
    return entry if entry.stop <= LANE_BYTES and head_octets <= octets else None


def void(descriptor: int, entry: Entry) -> None:
    """Mark a record as given up, durably: it must not come back from a crash."""
    with storage("The journal cannot give a record up"):
        os.pwrite(descriptor, b"\x01", entry.position + _VOID)
        os.fdatasync(descriptor)


def copy(descriptor: int, entry: Entry, target: Path) -> None:
    """Write the record's DICOM file to ``target``, which must not exist; not synced."""
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copied(descriptor, entry.start, entry.stop, out)
    finally:
        os.close(out)


def data(descriptor: int, entry: Entry) -> bytes:
    """The record's DICOM file."""
    parts, position = [], entry.start
    while position < entry.stop:
        part = os.pread(descriptor, entry.stop - position, position)
        if not part:
            raise StorageError("The journal ends before the record does.")
        parts.append(part)
        position += len(part)
    return b"".join(parts)


def copied(source: int, start: int, stop: int, target: int) -> None:
    """Append the bytes of ``source[start:stop]`` to the file ``target``.

    By way of a small buffer: what `copy_file_range` moves inside the kernel it moves page by page, for twice the
    processor time where an instance has megabytes.
    """
    buffer = memoryview(bytearray(min(COPIED_AT_ONCE, stop - start)))
    while start < stop:
        octets = os.preadv(source, [buffer[: stop - start]], start)
        if not octets:
            raise StorageError("The journal ends before the record does.")
        write_all(target, buffer[:octets])
        start += octets
