"""Unique identifiers, DICOM PS3.5 section 9."""

import re

from service.errors import DataSetMismatch

LONGEST = 64
# PS3.5 section 9.1, save that leading zeros of a component are let through: some carts write them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def is_uid(text: str) -> bool:
    return len(text) <= LONGEST and _UID.fullmatch(text) is not None


def named(uid: str) -> str:
    """The UID for a log; what is none may be anything, a patient's name as well, and stays out of it."""
    return uid if is_uid(uid) else "no UID"


def require_uid(uid: str, name: str) -> None:
    """Raise DataSetMismatch unless ``uid`` is one. What was sent instead stays out of the message."""
    if not is_uid(uid):
        raise DataSetMismatch(f"The {name} is {'no UID' if uid else 'missing'}.")
