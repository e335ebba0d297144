"""Writing to disk: every byte, synced when it says so, and the operating system's errors as the archive's own."""

import ctypes
import errno
import mmap
import os
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from service.errors import DiskFault, NotFound, OutOfSpace, SonomarkError, StorageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CHUNK = 1 << 20


class storage:
    """Turn the operating system's errors within the block into the archive's own.

    Entered five times an instance: a generator in its place would take three times as long.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise _refusal(self._what, error) from error


def _refusal(what: str, error: OSError) -> SonomarkError:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{what}: it is not there.")
    if error.errno in FULL:
        return OutOfSpace(f"{what}: the disk is full.")
    if error.errno == errno.EIO:
        return DiskFault(
            f"{what}: {error.strerror}.", cure="Look at the disk (`dmesg`, `smartctl`); nothing was acknowledged."
        )
    if isinstance(error, PermissionError):
        return StorageError(
            f"{what}: {error.strerror}.",
            cure="Give the account that Sonomark runs as the right to read and write there; nothing was acknowledged.",
        )
    return StorageError(f"{what}: {error.strerror}.", cure="Check the archive's disk; nothing was acknowledged.")


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte: a single write may be short without an error."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def begin_writing(descriptor: int, start: int, stop: int) -> None:
    """Let the disk begin with ``[start, stop)`` of a file and do not wait: a sync has less left to do.

    It promises nothing. What fails here the sync reports.
    """
    _libc.sync_file_range(descriptor, start, stop - start, _SYNC_FILE_RANGE_WRITE)


def write_early(path: Path, data: bytes) -> None:
    """Write a file of which the disk begins at once: of several, the first sync has done most for the others."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(descriptor, data)
        begin_writing(descriptor, 0, len(data))
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Put everything written to the file system of ``path`` on disk, files, names and folders, in one go.

    Raises:
        OSError: something on it could not be written (Linux 5.8 and later say so).
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def write_anew(path: Path) -> None:
    """Write a file's bytes over themselves, sync them, and compare with what the disk itself then returns.

    After a failed sync the pages are clean and perhaps not on disk, so that a second sync has nothing to do and
    succeeds. Written again they are dirty, and a sync means something.

    Raises:
        OSError: the disk fails still. DiskFault: it returns other bytes than it was given.
    """
    written = sha256()
    descriptor = os.open(path, os.O_RDWR)
    try:
        position = 0
        while chunk := os.pread(descriptor, CHUNK, position):
            view = memoryview(chunk)
            while view:
                done = os.pwrite(descriptor, view, position)
                view, position = view[done:], position + done
            written.update(chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if digest_on_disk(path) != written.digest():
        raise DiskFault(f"{path.name} was written and synced, and the disk returns other bytes.")


def digest_on_disk(path: Path) -> bytes:
    """SHA-256 of a synced file's bytes as the disk has them, whatever the page cache says."""
    digest = sha256()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.open(path, os.O_RDONLY)  # a file system without direct reads: clean pages can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        with mmap.mmap(-1, CHUNK) as buffer:  # direct reads want memory that begins on a page
            position = 0
            while count := os.preadv(descriptor, [buffer], position):
                digest.update(buffer[:count])
                position += count
    finally:
        os.close(descriptor)
    return digest.digest()


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE = 2
