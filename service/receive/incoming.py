"""A data set while it arrives: its bytes go straight to a temporary file, memory stays flat for a 1 GB cine."""

import os
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock

from service.archive.store import ArchiveStore, storage, write_all
from service.dicom.part10 import file_head
from service.errors import SonomarkError, StorageError


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a C-STORE-RQ's command and its presentation context say of the data set that follows."""

    sop_class_uid: str
    sop_instance_uid: str
    context_sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    correlation_id: str


class Incoming:
    """One data set on its way in. Writing never raises: a failure is kept for the answer, the rest is swallowed."""

    def __init__(self, archive: ArchiveStore, request: StoreRequest) -> None:
        self.request = request
        self.size = 0  # bytes of the data set
        self.failure: SonomarkError | None = None
        self._digest = sha256()
        self._lock = Lock()  # an association may be torn down while a fragment is being written
        self._descriptor = -1
        self.head_size = 0
        try:
            self.path = archive.incoming()
            with storage("The archive cannot take an instance in"):
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                head = file_head(
                    request.sop_class_uid,
                    request.sop_instance_uid,
                    request.transfer_syntax_uid,
                    request.calling_ae_title,
                )
                write_all(self._descriptor, head)
                self.head_size = len(head)
        except SonomarkError as error:
            self.failure = error

    @property
    def sha256(self) -> str:
        """Digest of the data set's bytes so far, without the head of the file."""
        return self._digest.hexdigest()

    def write(self, fragment: bytes | bytearray | memoryview) -> None:
        """Append a fragment of the data set."""
        with self._lock:
            if self.failure is not None or self._descriptor < 0:
                return
            self._digest.update(fragment)
            self.size += len(fragment)
            try:
                with storage("The archive cannot take an instance in"):
                    write_all(self._descriptor, fragment)
            except SonomarkError as error:
                self.failure = error

    def require_whole(self) -> None:
        """Raise what went wrong while writing, or StorageError when the file is not as long as what was written."""
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self._descriptor < 0:
                raise StorageError("The association ended before the instance was complete.")
            with storage("The archive cannot take an instance in"):
                written = os.fstat(self._descriptor).st_size
            if written != self.head_size + self.size:
                raise StorageError(f"Of {self.head_size + self.size} bytes only {written} were written.")

    def sync(self) -> None:
        """Put the file on disk and close it.

        Raises:
            StorageError: it is not all there. A failed sync is never tried again on the same file: the kernel
            drops the dirty pages and would report success.
        """
        self.require_whole()
        with self._lock, storage("The archive cannot put an instance on disk"):
            os.fsync(self._descriptor)
            self._close()

    def discard(self) -> None:
        """Remove the temporary file, if it was not renamed. Its name is of this process alone."""
        with self._lock:
            self._close()
            if self.failure is None:
                self.failure = StorageError("The association ended before the instance was complete.")
            if self.head_size:
                self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
