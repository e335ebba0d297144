"""Reading what is archived again, and comparing it with the digest it arrived with."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from service import logs
from service.archive.store import ArchiveStore
from service.db import checks
from service.db.checks import Stored
from service.db.session import Database
from service.db.tables import Condition, now
from service.dicom.header import data_set_position
from service.errors import DamagedObject, DiskFault, NotDicom, NotFound

log = logs.get(__name__)

HEAD = 1 << 16  # File Meta Information is far shorter
PAGE = 20  # objects a transaction
CURE = "Restore the object from backup, or have the study sent again: the same bytes mend it."


@dataclass(slots=True)
class Verified:
    """What was looked at."""

    ok: int = 0
    damaged: int = 0
    missing: int = 0
    octets: int = 0

    @property
    def checked(self) -> int:
        return self.ok + self.damaged + self.missing

    def count(self, condition: Condition, octets: int) -> None:
        setattr(self, condition.value, getattr(self, condition.value) + 1)
        self.octets += octets


def digest(chunks: Iterator[bytes]) -> tuple[str, int]:
    """SHA-256 and size in bytes of the data set within a DICOM file that comes in chunks.

    Raises:
        NotDicom: it does not begin like a DICOM file.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= HEAD:
            break
    start = data_set_position(head)
    hashed, size = sha256(head[start:]), len(head) - start
    for chunk in chunks:
        hashed.update(chunk)
        size += len(chunk)
    return hashed.hexdigest(), size


def condition_of(store: ArchiveStore, of: Stored) -> Condition:
    """Read the instance's bytes whole. Raises StorageError when the archive itself does not answer.

    One file that cannot be read, on a disk that keeps what it is given, is damaged: a bad sector looks like that.
    """
    try:
        found, _ = digest(store.stream(of.archive_key))
    except NotFound:
        return Condition.MISSING
    except (NotDicom, DamagedObject):
        return Condition.DAMAGED
    except DiskFault:
        store.prove()
        return Condition.DAMAGED
    return Condition.OK if found == of.sha256 else Condition.DAMAGED


def verify(
    store: ArchiveStore,
    db: Database,
    since: datetime,
    on_checked: Callable[[], None] = lambda: None,
) -> Verified:
    """Look at everything that was not looked at since then, as fast as the disk allows."""
    found, last = Verified(), 0
    while True:
        with db.read() as session:
            page = checks.unchecked(session, last, PAGE, since)
        if not page:
            return found
        conditions = {}
        for each in page:
            conditions[each.instance_id] = _look(store, each, found)
            on_checked()
        with db.begin() as session:
            checks.record(session, conditions)
        last = page[-1].instance_id


def verify_slice(
    store: ArchiveStore, db: Database, every: timedelta, for_s: float = 1.0, most_octets: int | None = None
) -> Verified:
    """Take the scheduled pass as far as it should be by now, but work for about ``for_s`` seconds at most.

    A pass is spread evenly over ``every``, so that the disk is never read in one go. ``most_octets`` bounds what is
    read. An archive that does not answer raises StorageError, and the pass stays where it is.
    """
    found, began = Verified(), time.monotonic()
    while time.monotonic() - began < for_s and (most_octets is None or found.octets < most_octets):
        with db.begin() as session:
            under_way = checks.current_pass(session, every)
            if under_way is None:
                return found
            share = min(1.0, (now() - under_way.started_at) / every) if every else 1.0
            due = max(1, int(under_way.last * share))
            page = checks.stored(session, under_way.reached, PAGE, up_to=due) if due > under_way.reached else []
        conditions, reached = {}, under_way.reached if page else due
        for each in page:
            conditions[each.instance_id] = _look(store, each, found)
            reached = each.instance_id
            if time.monotonic() - began > for_s or (most_octets is not None and found.octets >= most_octets):
                break
        if reached <= under_way.reached:
            return found
        with db.begin() as session:
            checks.record(session, conditions)
            if not checks.advance(session, under_way, reached, conditions):
                return found  # another sweeper is at it
        if reached >= under_way.last:
            return found
    return found


def _look(store: ArchiveStore, of: Stored, found: Verified) -> Condition:
    condition = condition_of(store, of)
    found.count(condition, of.size)
    if condition is not Condition.OK:
        log.error(
            f"archived object {condition.value}",
            instance=of.instance_id,
            sop_instance_uid=of.sop_instance_uid,
            key=of.archive_key,
            cure=CURE,
        )
    return condition
