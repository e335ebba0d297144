"""SQLite's write-ahead log gets its blocks before the first commit needs them.

A commit that lengthens the log makes the file system commit its own journal as well, for the file's new size: twice the
time of one that writes over blocks which the log has already. SQLite begins the log anew after a checkpoint and never
shortens it, so the first megabytes decide, and those that follow every start, for the last connection removes the log.
"""

import errno
import os
from pathlib import Path

from service.db.session import Database
from service.errors import DatabaseAway

LOG_BYTES = 24 << 20  # some more than the frames after which a checkpoint is due
LEAST_FREE = 4 * LOG_BYTES
_ZEROS = bytes(1 << 20)


def prepare_log(database: Database) -> bool:
    """Write the log to its usual length with zeros, which SQLite takes for no frame; whether it has that length now.

    A disk with little room is left as it is, and so is a database that has no such log.

    Raises:
        DatabaseAway: it does not answer, or its disk fails.
    """
    path = database.engine.url.database
    if database.engine.dialect.name != "sqlite" or not path:
        return False
    # Under the writers' lock: nobody else appends. SQLite has no locks on this file that closing it here could drop.
    with database.cursor():
        try:
            return _lengthen(Path(f"{path}-wal"))
        except FileNotFoundError:
            return False
        except OSError as error:
            # As when a commit of SQLite's own fails: what else stood in the log may be lost now.
            database.in_doubt = database.in_doubt or error.errno == errno.EIO
            raise DatabaseAway(f"The database's log cannot be written: {error.strerror}.") from error


def _lengthen(log: Path) -> bool:
    descriptor = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    try:
        state = os.fstatvfs(descriptor)
        length = os.fstat(descriptor).st_size
        if length < LOG_BYTES and state.f_bavail * state.f_frsize < LEAST_FREE:
            return False
        if length < LOG_BYTES:
            while length < LOG_BYTES:
                missing = -(-(LOG_BYTES - length) // len(_ZEROS))
                length += os.pwritev(descriptor, [_ZEROS] * missing, length)
            os.fsync(descriptor)
        return True
    finally:
        os.close(descriptor)
