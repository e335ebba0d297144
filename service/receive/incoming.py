"""A data set while it arrives: its bytes go straight to disk, memory stays flat for a 1 GB cine.

They go into the association's lane of the journal, or, where there is no lane or no room in it, into a temporary file
of their own.
"""

import mmap
import os
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from service.archive.journal import LEAST_ROOM
from service.archive.lanes import Data, Entry, Lane, LaneFull, Record
from service.archive.store import ArchiveStore, storage, write_all
from service.dicom.header import Header, parse_header
from service.dicom.part10 import file_head
from service.errors import NotDicom, SonomarkError, StorageError

LEAST_KNOWN = 1 << 20  # of room in a lane, for a sender of small instances


class StoreRequest(NamedTuple):
    """What a C-STORE-RQ's command and its presentation context say of the data set that follows."""

    sop_class_uid: str
    sop_instance_uid: str
    context_sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    correlation_id: str
    character_set: str = ""  # in place of what the data set declares
    priority: int = 0  # in the queue, the smaller the sooner
    only_studies: frozenset[str] = frozenset()  # that may be stored by whom a self-test let in; empty: any


class Berth:
    """Where one association's instances go: its lane, exchanged for another one when it is nearly full."""

    def __init__(self, archive: ArchiveStore) -> None:
        self.archive = archive
        self._lock = Lock()
        self._lane: Lane | None = None
        self._left = False
        self._largest = 0  # of its instances so far

    def lane(self) -> Lane | None:
        """A lane with room for most instances, if there is one.

        A sender that does not wait for its answers gets none while the instance before is not entered: in a lane there
        is one record at a time.
        """
        with self._lock:
            if self._lane is not None and self._lane.taken:
                return None
            if self._lane is not None and (not self._lane.sound or self._lane.room() < self._room()):
                self._give_back()
            if self._lane is None and not self._left:
                self._lane = self.archive.journal.take()
            return self._lane

    def took(self, octets: int) -> None:
        """An instance of this size has come."""
        self._largest = max(self._largest, octets)

    def _room(self) -> int:
        """What the next instance may need: an association's instances are much alike."""
        if not self._largest:
            return LEAST_ROOM
        return min(LEAST_ROOM, max(LEAST_KNOWN, self._largest + self._largest // 4))

    def leave(self) -> None:
        """The association has ended."""
        with self._lock:
            self._left = True
            self._give_back()

    def _give_back(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            self.archive.journal.give_back(lane)


class Incoming:
    """One data set on its way in. Writing never raises: a failure is kept for the answer, the rest is swallowed."""

    def __init__(self, berth: Berth, request: StoreRequest) -> None:
        self.request = request
        self.size = 0  # bytes of the data set
        self.failure: SonomarkError | None = None
        self.record: Record | None = None  # in a lane; its own file otherwise
        self.path: Path | None = None  # of its own file
        self._archive = berth.archive
        self._berth = berth
        self._digest = sha256()
        self._lock = Lock()  # an association may be torn down while a fragment is being written
        self._descriptor = -1
        self._only: Data | None = None  # the one fragment so far, as long as it is the only one
        self._sealed = False  # from then on the ledger alone decides what becomes of it
        self._durable = False
        self._syncing = Lock()  # by its own thread, or by the one that commits
        self._unsynced: StorageError | None = None  # that it could not be put on disk
        head = file_head(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid, request.calling_ae_title
        )
        self.head_size = len(head)
        try:
            lane = berth.lane()
            if lane is not None:
                self.record = lane.begin(head)
            else:
                self._open(head)
        except SonomarkError as error:
            self.failure = error

    @property
    def sha256(self) -> str:
        """Digest of the data set's bytes so far, without the head of the file."""
        return self._digest.hexdigest()

    def write(self, fragment: Data, *, last: bool = False) -> None:
        """Append a fragment of the data set. It must stay as it is until the next one, or the answer to the last."""
        with self._lock:
            if self.failure is not None or self._sealed:
                return
            self._digest.update(fragment)
            self._only = None if self.size else fragment
            self.size += len(fragment)
            try:
                if self.record is not None:
                    try:
                        # One that comes in one piece is written in one piece, with its head and its digest.
                        append = self.record.hold if last and self._only is not None else self.record.write
                        append(fragment)
                        return
                    except LaneFull:
                        self._move_out(self.record)
                with storage("The archive cannot take an instance in"):
                    write_all(self._descriptor, fragment)
            except SonomarkError as error:
                self.failure = error

    def require_whole(self) -> None:
        """Raise what went wrong while writing, or StorageError when the file is not as long as what was written."""
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self.record is not None:
                return
            with storage("The archive cannot take an instance in"):
                written = os.fstat(self._descriptor).st_size
            if written != self.head_size + self.size:
                raise StorageError(f"Of {self.head_size + self.size} bytes only {written} were written.")

    def header(self) -> Header:
        """The header of the data set, complete by now.

        Raises:
            NotDicom: it is none.
        """
        syntax, charset = self.request.transfer_syntax_uid, self.request.character_set
        if not self.size:
            raise NotDicom("The data set is empty.")
        if self._only is not None:
            return parse_header(self._only, syntax, character_set=charset)
        if self.record is not None:
            with self.record.view() as data:
                start = self.record.start - self.record.position + self.head_size
                return parse_header(data, syntax, start, character_set=charset)
        with mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ) as data:
            return parse_header(data, syntax, self.head_size, character_set=charset)

    def seal(self) -> None:
        """All of it is there: the disk begins with it. From here on `keep` or `void` says what becomes of it.

        Raises:
            StorageError: it is not all there.
        """
        self.require_whole()
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self.record is not None:
                self.record.seal(self.sha256)
            self._sealed = True
            self._berth.took(self.size)

    def sync(self) -> None:
        """Put the bytes of a sealed one on disk, if they are not there yet. Of several who ask one syncs, and all hear
        what came of it.

        Raises:
            StorageError: they are not. A failed sync is never tried again on the same file: the kernel drops the
            dirty pages and would report success.
        """
        with self._syncing:
            if self._unsynced is not None:
                raise self._unsynced
            if self._durable:
                return
            try:
                self._sync()
            except StorageError as error:
                self._unsynced = error
                raise
            self._durable = True

    def _sync(self) -> None:
        if self.record is not None:
            self.record.lane.sync()
        else:
            with storage("The archive cannot put an instance on disk"):
                os.fsync(self._descriptor)
                self._close()

    def seal_again(self) -> None:
        """Its record holds, whoever gave up the same bytes meanwhile (`Journal.give_up` takes all that it finds)."""
        with self._syncing:  # a sync that began before this says nothing of what is written now
            if self.record is not None:
                self._durable = False
                self.record.seal(self.sha256)

    def keep(self) -> tuple[Lane, Entry] | None:
        """It is committed: a record in a lane is the filing's from now on."""
        record, self.record = self.record, None
        return None if record is None else (record.lane, record.hand_on())

    def void(self) -> None:
        """It was not taken in, or was here before."""
        with self._lock:
            self._sealed = False
        self.discard()

    def discard(self) -> None:
        """Forget it, unless it is sealed already. Whoever else holds it finds a failure."""
        with self._lock:
            if self._sealed:
                return
            if self.failure is None:
                self.failure = StorageError(
                    "The association ended before the instance was complete.",
                    cure="Look at the network and at the sender; its retry brings the instance again.",
                )
            self._only = None
            record, self.record = self.record, None
            if record is not None:
                self._drop(record)
            self._close()
            if self.path is not None:
                self.path.unlink(missing_ok=True)

    def _open(self, head: bytes) -> None:
        self.path = self._archive.incoming()
        with storage("The archive cannot take an instance in"):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            write_all(self._descriptor, head)

    def _move_out(self, record: Record) -> None:
        """It outgrows its lane and goes on in a file of its own."""
        self._open(b"")
        with storage("The archive cannot take an instance in"):
            record.copy_to(self._descriptor)
        self.record = None
        self._drop(record)

    def _drop(self, record: Record) -> None:
        try:
            record.drop()
        except StorageError as error:
            self.failure = self.failure or error
        self._archive.journal.settled(record.lane)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
