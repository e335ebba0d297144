"""Storage commitment as SCP (PS3.4 annex J): a peer asks whether its instances are safe before it deletes them.

The answer is true when it is given: each instance's row is looked up and each of its bytes is read again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from service.archive.store import ArchiveStore
from service.db import instances
from service.db.session import Database
from service.errors import SonomarkError

PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST = 1  # action type: request storage commitment
ALL_COMMITTED, SOME_FAILED = 1, 2  # event types

MOST_REFERENCES = 10_000
MOST_WAITING = 100  # unreported requests of one peer
CHUNK = 1 << 20


class Refusal(IntEnum):
    """Status of an N-ACTION response that takes nothing on (PS3.7 section 10.1.4.1.10)."""

    NO_SUCH_INSTANCE = 0x0112  # not the well-known instance of the push model
    INVALID_ARGUMENT = 0x0115  # no transaction UID, or no instances
    NO_SUCH_ACTION = 0x0123
    PROCESSING_FAILURE = 0x0110  # the database is away; ask again later
    RESOURCE_LIMITATION = 0x0213  # too long a list, or too many requests wait


class Failure(IntEnum):
    """Why an instance is not committed (PS3.3 section C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110  # its bytes are missing or damaged; send it again
    NO_SUCH_OBJECT_INSTANCE = 0x0112  # not stored here
    CLASS_INSTANCE_CONFLICT = 0x0119  # stored, but as an instance of another SOP class


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance that a peer asks about."""

    sop_class_uid: str
    sop_instance_uid: str


class Refused(Exception):
    """The request is not taken on."""

    def __init__(self, status: Refusal) -> None:
        super().__init__(status.name)
        self.status = status


def read_request(action_type: int, instance_uid: str, information: Dataset) -> tuple[str, list[Reference]]:
    """Transaction UID and instances of an N-ACTION request.

    Raises:
        Refused: it is no request for storage commitment, or asks for too much.
    """
    if instance_uid != PUSH_MODEL_INSTANCE:
        raise Refused(Refusal.NO_SUCH_INSTANCE)
    if action_type != REQUEST:
        raise Refused(Refusal.NO_SUCH_ACTION)
    transaction = str(information.get("TransactionUID", "") or "")
    listed: Sequence[Dataset] = information.get("ReferencedSOPSequence") or []
    if not transaction or len(transaction) > 64 or not listed:
        raise Refused(Refusal.INVALID_ARGUMENT)
    if len(listed) > MOST_REFERENCES:
        raise Refused(Refusal.RESOURCE_LIMITATION)
    references = [
        Reference(str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", "")))
        for item in listed
    ]
    if any(not 0 < len(reference.sop_instance_uid) <= 64 for reference in references):
        raise Refused(Refusal.INVALID_ARGUMENT)
    return transaction, references


def examine(
    archive: ArchiveStore, database: Database, references: Sequence[Reference]
) -> list[tuple[Reference, Failure | None]]:
    """Each instance with the reason why it is not safe, or None when it is: in the database, and its bytes on disk.

    Raises:
        DatabaseAway: nothing can be said now.
    """
    return [(reference, _failure(archive, database, reference)) for reference in references]


def report(
    transaction_uid: str, ae_title: str, found: Sequence[tuple[Reference, Failure | None]]
) -> tuple[int, Dataset]:
    """Event type and event information of the N-EVENT-REPORT."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.RetrieveAETitle = ae_title
    failed = [(reference, failure) for reference, failure in found if failure is not None]
    committed = [reference for reference, failure in found if failure is None]
    if committed:
        information.ReferencedSOPSequence = DicomSequence([_item(reference) for reference in committed])
    if failed:
        information.FailedSOPSequence = DicomSequence([_item(*each) for each in failed])
    return SOME_FAILED if failed else ALL_COMMITTED, information


def _item(reference: Reference, failure: Failure | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_instance_uid
    if failure is not None:
        item.FailureReason = int(failure)
    return item


def _failure(archive: ArchiveStore, database: Database, reference: Reference) -> Failure | None:
    with database.read() as session:
        stored = [
            (row.sop_class_uid, row.archive_key, row.sha256, row.size)
            for row in instances.of_uids(session, [reference.sop_instance_uid])
        ]
    if not stored:
        return Failure.NO_SUCH_OBJECT_INSTANCE
    # Of two versions with different bytes nobody can tell which one the peer means: both have to be safe.
    for sop_class_uid, key, digest, size in stored:
        if sop_class_uid != reference.sop_class_uid:
            return Failure.CLASS_INSTANCE_CONFLICT
        if not _is_whole(archive, key, digest, size):
            return Failure.PROCESSING_FAILURE
    return None


def _is_whole(archive: ArchiveStore, key: str, digest: str, size: int) -> bool:
    """Whether the last ``size`` bytes of the object, its data set, have this digest."""
    try:
        skipped = (archive.size(key) or 0) - size
        if skipped < 0:
            return False
        found = sha256()
        for chunk in archive.stream(key):
            found.update(memoryview(chunk)[min(skipped, len(chunk)) :])
            skipped -= min(skipped, len(chunk))
    except SonomarkError:
        return False
    return found.hexdigest() == digest
