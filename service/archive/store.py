"""The archive: bytes of instances and masks in a folder, each object durable before anyone is told of it.

Keys are relative paths made from digests and row ids, never from anything a peer sent.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from itertools import count
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import NamedTuple, TypeVar
from uuid import uuid4

from service.archive.disk import digest_on_disk, sync_file_system, write_early
from service.archive.disk import fsync_file as fsync_file
from service.archive.disk import fsync_folder as fsync_folder
from service.archive.disk import storage as storage
from service.archive.disk import write_all as write_all
from service.archive.journal import Journal
from service.errors import ConfigurationError, DiskFault, StorageError, Unreadable
from service.failpoints import fp
from service.settings import settings

CHUNK = 1 << 20
INSTANCES = "instances"
Read = TypeVar("Read")


class Made(NamedTuple):
    """Which file it is, whatever its name."""

    inode: int
    written_ns: int


class ArchiveStore:
    """A folder of immutable objects, each written under a name of its writer's own and then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._incoming = self.root / "incoming"
        with storage(f"The archive folder {self.root} cannot be made"):
            self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._count = count()
        self._own: tuple[Path, int] | None = None  # this process's folder for temporary files and its lock
        self._own_lock = Lock()
        self._known_folders: set[Path] = set()
        self.journal = Journal(self.root / "journal")

    def prepare(self) -> None:
        """Make the folders of instances beforehand: later each one would cost a sync of its parent in the line."""
        with storage(f"The archive folder {self.root} cannot be made"):
            for number in range(256):
                folder = self.place(instance_key(f"{number:02x}")).parent
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._known_folders.add(folder)
            fsync_folder(self.place("instances"))
            fsync_folder(self.root)

    def incoming(self) -> Path:
        """A path for a temporary file that only this process will ever use, on the archive's file system."""
        with self._own_lock, storage("The archive cannot take anything in"):
            if self._own is None:
                self._own = _own_folder(self._incoming)
        return self._own[0] / f"{os.getpid()}.{next(self._count)}.part"

    def keep(self, temporary: Path, key: str) -> Path:
        """Make ``temporary`` the object ``key``, durably: file, name and folders are on disk on return.

        Raises:
            OutOfSpace, StorageError: nothing was kept; the temporary file is still there.
        """
        with storage(f"The archive could not keep {key}"):
            fsync_file(temporary)
        return self.publish(temporary, key)

    def publish(self, temporary: Path, key: str) -> Path:
        """Rename an already synced temporary file to ``key`` and sync the folder that names it."""
        self.publish_all([(temporary, key)])
        return self.place(key)

    def publish_all(self, objects: list[tuple[Path, str]]) -> None:
        """Publish many: each folder is synced once."""
        folders = set()
        for temporary, key in objects:
            target = self.place(key)
            with storage(f"The archive could not keep {key}"):
                self._make_folder(target.parent)
                fp("archive.before_rename")
                # Of two copies of one instance in the same batch the second has nothing left to rename.
                if temporary.exists() or not target.exists():
                    temporary.rename(target)
            folders.add(target.parent)
        with storage("The archive could not sync a folder"):
            for folder in sorted(folders):
                fp("archive.before_dirsync")
                fsync_folder(folder)

    def file_all(self, objects: list[tuple[Path, str]]) -> None:
        """Publish many that are not synced yet: one sync of the file system for their bytes, one for their names.

        A name never stands for bytes that are not there, not even between a power cut and the receiver's next start:
        whoever reads meanwhile would take the file for the instance.
        """
        with storage("The archive could not file instances"):
            sync_file_system(self.root)
            self._owe(objects)
            for temporary, key in objects:
                target = self.place(key)
                self._make_folder(target.parent)
                fp("filing.before_rename")
                temporary.rename(target)
            fp("filing.before_sync")
            sync_file_system(self.root)

    def _owe(self, objects: list[tuple[Path, str]]) -> None:
        """Note, of files that are on disk and have no name yet, that they are owed to another place."""

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, durably."""
        self.put_all([(key, data)])

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Store many, durably: each folder is synced once."""
        written = [(self.incoming(), key) for key, _ in objects]
        try:
            for (temporary, key), (_, data) in zip(written, objects, strict=True):
                with storage(f"The archive could not keep {key}"):
                    write_early(temporary, data)
            for temporary, key in written:
                with storage(f"The archive could not keep {key}"):
                    fsync_file(temporary)
            self.publish_all(written)
        finally:
            for temporary, _ in written:
                temporary.unlink(missing_ok=True)

    def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: there is no such object. StorageError: it cannot be read.
        """
        with storage(f"The archive could not read {key}"):
            if is_instance(key) and not self.place(key).exists():
                # Without a file of its own first: on a full disk there is no room for one.
                waiting = self.journal.data(_digest(key))
                if waiting is not None:
                    return waiting
            return self.path(key).read_bytes()

    def path(self, key: str) -> Path:
        """A file with the object's bytes, for reading; it is there if the object is.

        Raises StorageError when the archive does not answer.
        """
        place = self.place(key)
        with storage(f"The archive could not read {key}"):
            is_there = place.exists()
        if not is_there:
            self._from_journal(key)
        return place

    def reading(self, key: str, read: Callable[[Path], Read]) -> Read:
        """What ``read`` makes of the object's file; a copy that cannot be read is fetched anew once.

        Raises what ``read`` and `path` raise.
        """
        try:
            return read(self.path(key))
        except Unreadable:
            if not self.fetch_anew(key):
                raise
            return read(self.path(key))

    def stream(self, key: str) -> Iterator[bytes]:
        """The object's bytes in chunks, as they are kept for good; nothing is cached.

        Raises:
            NotFound: there is no such object. StorageError: it cannot be read.
        """
        return self._chunks(self.path(key), key)

    def read(self, key: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes of the object from position ``start`` on."""
        with storage(f"The archive could not read {key}"), self.path(key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def check(self) -> str:
        """Prove that the archive can be used; says where it is.

        Raises:
            ConfigurationError: a setting is wrong. StorageError: it does not answer.
        """
        probe = self.incoming()
        with storage(f"The archive folder {self.root} cannot be written"):
            probe.write_bytes(b"")
            probe.unlink()
        return str(self.root)

    def is_there(self) -> bool:
        """Whether this is the folder in which instances are kept, and not the empty place where it is to be mounted."""
        return os.path.isdir(self.place("instances"))  # noqa: PTH112 - a share that does not answer is not there either

    def prove(self) -> None:
        """Write a new file, sync it and its folder, and read it back from the disk itself.

        Raises:
            StorageError: the disk does not keep what it is given.
        """
        probe, data = self.incoming(), os.urandom(CHUNK)
        with storage(f"The archive's disk {self.root} failed its test"):
            try:
                probe.write_bytes(data)
                fsync_file(probe)
                fsync_folder(probe.parent)
                if digest_on_disk(probe) != sha256(data).digest():
                    raise DiskFault("A file was written and synced, and the disk returns other bytes.")
            finally:
                probe.unlink(missing_ok=True)

    def place(self, key: str) -> Path:
        """Where in the folder the object ``key`` lies or will lie."""
        if key.startswith("/") or ".." in key.split("/") or key.strip("./") == "":
            raise StorageError(f"'{key}' is no archive key.", cure="This is Sonomark's own fault: report it.")
        return Path(f"{self.root}/{key}")

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of the object, or None when there is none."""
        filed = self.filed_size(key)
        if filed is None and is_instance(key):
            # Between the two looks it may have been filed and its lane begun anew.
            return self.journal.size(_digest(key)) or self.filed_size(key)
        return filed

    def filed_size(self, key: str) -> int | None:
        """Bytes of the object's own file, or None when it has none yet."""
        try:
            return self.place(key).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove an object a person or a released retention rule has given up."""
        with storage(f"The archive could not delete {key}"):
            if is_instance(key):
                self.journal.give_up(_digest(key))
            self.place(key).unlink(missing_ok=True)

    def take_back(self, key: str, made: Made) -> None:
        """Remove the file that was just ``made`` of a record given up meanwhile.

        The same bytes may have come again since, and been acknowledged. Their record stays in the journal and becomes
        a file in its turn; or they have become one already, by another process, and it is put back.
        """
        taken = self.incoming()
        with storage(f"The archive could not delete {key}"):
            with suppress(FileNotFoundError):
                if made_of(self.place(key)) != made:
                    return
                # Another process may put its own there in this very moment: what was taken is looked at once more.
                self.place(key).rename(taken)
                if made_of(taken) != made:
                    with suppress(FileExistsError):  # and once more meanwhile
                        self.place(key).hardlink_to(taken)
                    fsync_folder(self.place(key).parent)
            taken.unlink(missing_ok=True)

    def drain(self, timeout: float) -> bool:
        """Wait until nothing waits on this machine alone for its final place; False when time ran out."""
        return True

    def mend(self, key: str) -> bool:
        """Put a good copy that lies elsewhere in place of the object; False where there is no other copy."""
        return False

    def fetch_anew(self, key: str) -> bool:
        """Put the bytes that are kept for good in place of this machine's copy; False where there is no other place.

        Raises StorageError when they cannot be had now; the copy stays.
        """
        return False

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of all objects below ``prefix``."""
        for folder, _, names in os.walk(self.place(prefix)):
            for name in names:
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def free_bytes(self) -> int:
        """Space left for this process on the archive's file system."""
        with storage("The archive's file system does not answer"):
            state = os.statvfs(self.root)
        return state.f_bavail * state.f_frsize

    def remove_abandoned(self) -> int:
        """Remove the temporary files of processes that have ended; returns how many there were."""
        removed = 0
        with storage("The archive's temporary files cannot be removed"):
            for folder in self._incoming.iterdir():
                descriptor = _locked(folder)
                if descriptor is None:
                    continue  # its owner lives
                try:
                    for temporary in folder.glob("*.part"):
                        temporary.unlink(missing_ok=True)
                        removed += 1
                    with suppress(FileNotFoundError):  # another process tidies at the same moment
                        folder.rmdir()
                finally:
                    os.close(descriptor)
        return removed

    def _from_journal(self, key: str) -> bool:
        """Make an instance that waits in the journal readable under its own name; filing makes that name durable."""
        if not is_instance(key):
            return False
        temporary = self.incoming()
        try:
            copied = self.journal.copy(_digest(key), temporary)
        except StorageError:
            temporary.unlink(missing_ok=True)
            raise
        if not copied:
            return self.place(key).exists()
        with storage(f"The archive could not keep {key}"):
            fsync_file(temporary)  # or a power cut may leave the name without the bytes
            self._make_folder(self.place(key).parent)
            temporary.rename(self.place(key))
        return True

    def _chunks(self, path: Path, key: str) -> Iterator[bytes]:
        with storage(f"The archive could not read {key}"), path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def _make_folder(self, folder: Path) -> None:
        if folder in self._known_folders:
            return
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for made in missing:
            fsync_folder(made.parent)
        self._known_folders.add(folder)


def made_of(path: Path) -> Made:
    """The file that bears this name now."""
    facts = path.stat()
    return Made(facts.st_ino, facts.st_mtime_ns)


def instance_key(sha256: str) -> str:
    """Key of an instance whose data set has this digest."""
    return f"{INSTANCES}/{sha256[:2]}/{sha256}.dcm"


def is_instance(key: str) -> bool:
    """Whether the object is an instance, which may lie in the journal."""
    return key.startswith(f"{INSTANCES}/") and key.endswith(".dcm")


def _digest(key: str) -> str:
    return PurePosixPath(key).stem


@lru_cache
def archive() -> ArchiveStore:
    """This process's archive.

    Raises:
        ConfigurationError: the setting names neither a folder nor a bucket. Whether it can be used, `check` says.
    """
    chosen = settings()
    scheme, separator, _ = chosen.archive().partition("://")
    if not separator or scheme == "file":
        return ArchiveStore(Path(chosen.archive().removeprefix("file://")))
    if scheme != "s3":
        raise ConfigurationError(
            f"No archive speaks '{scheme}://'.", cure="Set SONOMARK_ARCHIVE_URL to a folder or to s3://bucket/prefix."
        )
    from service.archive.bucket import Bucket  # boto3 is an extra, and slow to import
    from service.archive.remote import RemoteStore

    bucket = Bucket(chosen.archive(), chosen)
    return RemoteStore(chosen.data_dir / "archive", bucket, chosen.archive_cache_mb << 20)


def _own_folder(parent: Path) -> tuple[Path, int]:
    """A new folder that is locked for as long as this process lives, however it ends."""
    while True:
        folder = parent / uuid4().hex
        folder.mkdir(mode=0o700)
        descriptor = _locked(folder)
        # Between mkdir and lock another process may have taken it for abandoned and removed it.
        if descriptor is not None and folder.exists():
            return folder, descriptor


def _locked(folder: Path) -> int | None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
