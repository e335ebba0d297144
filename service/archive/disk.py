"""Writing to disk: every byte, synced when it says so, and the operating system's errors as the archive's own."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import NotFound, OutOfSpace, StorageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Turn the operating system's errors into the archive's own."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{what}: it is not there.") from error
    except OSError as error:
        if error.errno in FULL:
            raise OutOfSpace(f"{what}: the disk is full.") from error
        raise StorageError(
            f"{what}: {error.strerror}.", cure="Check the archive's disk; nothing was acknowledged."
        ) from error


def write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte: a single write may be short without an error."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


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


_libc = ctypes.CDLL(None, use_errno=True)
