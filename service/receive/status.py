"""The status that answers a C-STORE, DICOM PS3.4 section B.2.3 and PS3.7 annex C.

Never Success by accident, never an unnamed one.
"""

from enum import IntEnum
from typing import NamedTuple

from service.errors import DatabaseAway, DataSetMismatch, NotAllowed, NotDicom, OutOfSpace, StorageError


class Status(IntEnum):
    SUCCESS = 0x0000  # on disk, in the database and queued
    NOT_AUTHORIZED = 0x0124  # its sender may store a self-test and nothing else
    OUT_OF_RESOURCES = 0xA700  # nothing kept; the same request will succeed later
    DATA_SET_MISMATCH = 0xA900  # data set and command, or data set and SOP class, disagree
    CANNOT_UNDERSTAND = 0xC000  # no data set, or one that is cut off

    @property
    def label(self) -> str:
        return self.name.lower()


class Answer(NamedTuple):
    """What the sender of one instance is told, and how it came to that."""

    status: Status
    comment: str = ""  # to a failure
    created: bool = False  # False of what was here before, and of failures
    conflict: bool = False
    error: Exception | None = None
    seconds: float = 0.0  # that it took to say so


# The first line that fits counts. What is not listed is a fault of ours: the sender keeps its copy and tries again.
_ANSWERS: list[tuple[type[BaseException], Status]] = [
    (DataSetMismatch, Status.DATA_SET_MISMATCH),
    (NotDicom, Status.CANNOT_UNDERSTAND),
    (NotAllowed, Status.NOT_AUTHORIZED),
    (OutOfSpace, Status.OUT_OF_RESOURCES),
    (StorageError, Status.OUT_OF_RESOURCES),
    (DatabaseAway, Status.OUT_OF_RESOURCES),
]


def answer(error: BaseException) -> Status:
    """The status that tells the sender of this error."""
    return next((status for kind, status in _ANSWERS if isinstance(error, kind)), Status.OUT_OF_RESOURCES)
