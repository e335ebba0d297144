"""``spool:///folder``: a message broker in a folder, for machines without one.

kombu's own ``filesystem://`` writes messages in place, and a reader that is quick takes half of one. Here a message
is written aside and renamed into the queue's folder; whoever manages to unlink it has taken it.
"""

import os
import uuid
from collections import defaultdict, deque
from pathlib import Path
from queue import Empty
from time import time_ns
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.utils.json import dumps, loads

from service import logs

log = logs.get(__name__)

POLL_S = 0.02
ASIDE = ".aside"


def folder(url: str) -> Path:
    """The folder that a ``spool://`` URL names."""
    parts = urlsplit(url)
    return Path(unquote(parts.netloc + parts.path))


class Channel(virtual.Channel):
    """One queue is one folder, one message one file; names sort by time."""

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)  # type: ignore[no-untyped-call]
        self._folder = Path(connection.client.transport_options["folder"])
        self._listed: dict[str, deque[str]] = defaultdict(deque)

    def _new_queue(self, queue: str, **_: Any) -> None:
        for path in (self._folder, self._folder / ASIDE, self._folder / queue):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)  # mkdir's mode is cut by the umask, and the folder may be older than we are

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        name = f"{time_ns():020d}-{uuid.uuid4().hex}.json"
        aside, text = self._folder / ASIDE / name, dumps(message)  # type: ignore[no-untyped-call]
        try:
            aside.write_text(text, encoding="utf-8")
            aside.rename(self._folder / queue / name)
        except FileNotFoundError:  # somebody emptied the spool
            self._new_queue(queue)
            aside.write_text(text, encoding="utf-8")
            aside.rename(self._folder / queue / name)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        # One listing serves until it is used up: listing a long queue for each message would take quadratic time.
        listed = self._listed[queue]
        if not listed:
            listed.extend(self._names(queue))
        while listed:
            message = _take(self._folder / queue / listed.popleft())
            if message is not None:
                return message
        raise Empty

    def _size(self, queue: str) -> int:
        return len(self._names(queue))

    def _purge(self, queue: str) -> int:
        names = self._names(queue)
        for name in names:
            (self._folder / queue / name).unlink(missing_ok=True)
        return len(names)

    def _names(self, queue: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._folder / queue) if name.endswith(".json"))  # noqa: PTH208
        except FileNotFoundError:
            return []


class Transport(virtual.Transport):
    """Polls the folder; many processes may send and take at the same time."""

    Channel = Channel
    polling_interval = POLL_S
    driver_type = "spool"
    driver_name = "spool"

    def driver_version(self) -> str:
        return "1"

    @property
    def default_connection_params(self) -> dict[str, Any]:
        return {}  # a folder has neither host nor port


def _take(path: Path) -> dict[str, Any] | None:
    """The message, if this process is the one that unlinks it and it is one."""
    try:
        text = path.read_text(encoding="utf-8")
        path.unlink()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        log.warning("unreadable message dropped", file=path.name)
        path.unlink(missing_ok=True)
        return None
    try:
        message = loads(text)  # type: ignore[no-untyped-call]
        _ = message["body"], message["properties"]["delivery_tag"], message["properties"]["delivery_info"]
    except (ValueError, KeyError, TypeError):
        log.warning("malformed message dropped", file=path.name)
        return None
    return message  # type: ignore[no-any-return]


TRANSPORT_ALIASES["spool"] = f"{__name__}:Transport"
