"""A PostgreSQL that answers nothing is one that is away: in a role whose peers wait, no wait for it lasts for ever.

TCP tells of a server that died. Of one that hangs, or of a cable that was pulled, it says nothing for many minutes, and
a modality gives up after half of one.
"""

from collections.abc import Generator
from math import inf
from time import monotonic
from typing import Any

from psycopg import Connection, OperationalError
from sqlalchemy import Engine, event

CONNECT_S = 5
_LOOK_S = 0.5


class _Patience:
    seconds = inf


_patience = _Patience()


def limit(seconds: float) -> None:
    """From now on this process gives up on an answer of PostgreSQL after so many seconds; the connection is closed."""
    _patience.seconds = seconds


def bound(engine: Engine) -> None:
    """Make the engine's connections obey `limit`."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]) -> Connection[Any]:
        return ImpatientConnection.connect(*arguments, **{"connect_timeout": CONNECT_S, **options})


class ImpatientConnection(Connection[Any]):
    """psycopg's connection, whose waits end."""

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        """Run one exchange with the server.

        Raises:
            OperationalError: it took longer than `limit` allows.
        """
        if _patience.seconds == inf:
            return super().wait(gen, *arguments, **options)
        return super().wait(self._until(gen, monotonic() + _patience.seconds), _LOOK_S)

    def _until(self, gen: Generator[Any, Any, Any], end: float) -> Generator[Any, Any, Any]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and monotonic() > end:
                    self.pgconn.finish()
                    raise OperationalError("no answer in time")
                wanted = gen.send(ready)
        except StopIteration as ended:
            return ended.value
