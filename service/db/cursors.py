"""Cursors of the worklist: the key of the row at which a page ends, bound to the filter it was read by."""

import base64
import binascii
import json
from datetime import datetime
from typing import NamedTuple

from service.errors import Conflict


class Key(NamedTuple):
    """A row's place in the order."""

    rank: int
    received: datetime
    id: int


def write(digest: str, key: Key, *, backwards: bool) -> str:
    """A cursor for the page beyond this row; ``digest`` is the filter's fingerprint."""
    told = [digest, int(backwards), key.rank, key.received.isoformat(), key.id]
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


def read(digest: str, cursor: str) -> tuple[bool, Key]:
    """Whether it leads backwards, and from which row; raises Conflict when it is damaged or of another filter."""
    try:
        told = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        bound_to, backwards, rank, received, id_ = told
        key = Key(int(rank), datetime.fromisoformat(received), int(id_))
        if key.received.tzinfo is None or not 0 <= key.id < 2**63:
            raise ValueError
    except (ValueError, TypeError, binascii.Error, OverflowError) as error:
        raise Conflict("This is not a cursor of the worklist.", cure="Start again without it.") from error
    if bound_to != digest:
        raise Conflict("The cursor belongs to another filter.", cure="Start again without it.")
    return bool(backwards), key
