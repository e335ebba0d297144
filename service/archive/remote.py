"""The archive in a bucket, with a folder of this machine in front of it.

What is taken in becomes durable in the folder, as without a bucket, and is acknowledged then; the outbox carries it up
afterwards and as often as it takes. What is in the bucket may lie in the folder too, as a cache of bounded size: a
file there whose bytes the bucket does not have yet has a second name in the outbox, and is never thrown away.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path, PurePosixPath

from service.archive.bucket import Bucket
from service.archive.cache import Cache, touch
from service.archive.outbox import Outbox
from service.archive.store import ArchiveStore, Made, fsync_folder, is_instance, made_of, storage
from service.errors import NotArchived, NotFound, StorageError

# A reader holds a path for a moment before it opens it; what was used this lately stays.
IN_USE_S = 600.0


class RemoteStore(ArchiveStore):
    """An `ArchiveStore` whose objects end up in a bucket."""

    def __init__(self, root: Path, bucket: Bucket, cache_bytes: int) -> None:
        super().__init__(root)
        self.bucket = bucket
        self.outbox = Outbox(self.root / "outbox", bucket)
        self._caches = [Cache(self.root / name, cache_bytes, _may_go) for name in ("instances", "masks")]

    def prepare(self) -> None:
        super().prepare()
        self.outbox.start()

    def check(self) -> str:
        self.bucket.check()
        count, age = self.outbox.backlog()
        waiting = f"; {count} objects wait on this machine, the oldest for {age:.0f} s" if count else ""
        return f"{self.bucket} by way of {self.root}{waiting}"

    def publish_all(self, objects: list[tuple[Path, str]]) -> None:
        # The second name first: from the moment an object is readable it is known to be owed to the bucket.
        with storage("The archive could not note what the bucket is owed"):
            self._owe(objects)
            fsync_folder(self.outbox.folder)
            size = sum(source.stat().st_size for source, _ in objects if source.exists())
        super().publish_all(objects)
        self.outbox.ring()
        self._caches[0].grew(size)

    def file_all(self, objects: list[tuple[Path, str]]) -> None:
        with storage("The archive could not file instances"):
            size = sum(source.stat().st_size for source, _ in objects)
        super().file_all(objects)
        self.outbox.ring()
        self._caches[0].grew(size)

    def _owe(self, objects: list[tuple[Path, str]]) -> None:
        self.outbox.add(objects)

    def put_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for key, data in objects:
            self.bucket.put(key, data)
            temporary = self.incoming()
            with storage(f"The archive could not keep {key} on this machine"):
                temporary.write_bytes(data)
                self._cache(temporary, key)

    def get(self, key: str) -> bytes:
        with storage(f"The archive could not read {key}"):
            return self.path(key).read_bytes()

    def path(self, key: str) -> Path:
        """A file of this machine with the object's bytes, fetched if need be.

        Raises:
            NotArchived: the bucket does not have it (yet: another machine may not have sent it up).
            StorageError: it does not answer.
        """
        place = self.place(key)
        with storage(f"The archive could not read {key} on this machine"):
            is_there = place.exists() or self._from_journal(key)
            if is_there:
                touch(place)
                return place
        self._fetch(key)
        return place

    def _fetch(self, key: str) -> None:
        """Make what waits in the outbox, or the bucket's object, this machine's copy; raises as `path`."""
        waiting = self.outbox.find(key)
        temporary = self.incoming()
        try:
            if waiting is not None:
                temporary.hardlink_to(waiting)
            else:
                with storage(f"The archive could not keep {key} on this machine"):
                    self.bucket.fetch(key, temporary)
            with storage(f"The archive could not keep {key} on this machine"):
                self._cache(temporary, key)
        except NotFound as error:
            raise NotArchived(f"{key} is not in the bucket {self.bucket.name}.") from error
        finally:
            temporary.unlink(missing_ok=True)

    def stream(self, key: str) -> Iterator[bytes]:
        """The bytes the bucket keeps, or those of the outbox while it keeps none."""
        waiting = self._journal_or_outbox(key)
        if waiting is None:
            return self.bucket.stream(key)
        return self._chunks(waiting, key)

    def read(self, key: str, start: int, length: int) -> bytes:
        if self.place(key).exists() or self.outbox.find(key) is not None:
            with storage(f"The archive could not read {key}"), self.path(key).open("rb") as file:
                file.seek(start)
                return file.read(length)
        return self.bucket.read(key, start, length)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        waiting = self._journal_or_outbox(key)
        return waiting.stat().st_size if waiting is not None else self.bucket.size(key)

    def delete(self, key: str) -> None:
        if self._journal_or_outbox(key) is not None:
            raise StorageError(f"{key} is still on its way to the bucket.", cure="It can be deleted when it is there.")
        self.bucket.delete(key)
        super().delete(key)

    def take_back(self, key: str, made: Made) -> None:
        with suppress(FileNotFoundError):
            if made_of(self.place(key)) != made:
                return
        # Refused while the same bytes wait in journal or outbox: so nothing that came again is given up with it.
        self.delete(key)

    def drain(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.outbox.backlog()[0]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def mend(self, key: str) -> bool:
        """Send this machine's copy up again, over what the bucket has; False when there is none here.

        Whether the copy is good is for the caller to find out first.
        """
        place = self.place(key)
        if not place.exists():
            return False
        self.bucket.put_file(place, key, replace=True)
        return True

    def fetch_anew(self, key: str) -> bool:
        if self._journal_or_outbox(key) is not None:
            return False  # the bucket may not have it
        self._fetch(key)
        return True

    def keys(self, prefix: str) -> Iterator[str]:
        waiting = {key for key in self.outbox.waiting() if key.startswith(f"{prefix}/")}
        return chain(sorted(waiting), (key for key in self.bucket.keys(prefix) if key not in waiting))

    def _journal_or_outbox(self, key: str) -> Path | None:
        """The object's file on this machine while the bucket may not have it. It moves in this order."""
        if is_instance(key) and self.journal.size(PurePosixPath(key).stem) is not None:
            return self.path(key)
        return self.outbox.find(key)

    def _cache(self, temporary: Path, key: str) -> None:
        place = self.place(key)
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        size = temporary.stat().st_size
        temporary.replace(place)
        self._caches[place.parts[len(self.root.parts)] == "masks"].grew(size)


def _may_go(facts: os.stat_result) -> bool:
    """Whether the bucket has the file's bytes (no second name waits) and nobody is about to open it."""
    return facts.st_nlink == 1 and time.time() - facts.st_mtime > IN_USE_S
