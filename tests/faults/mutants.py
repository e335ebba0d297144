"""The product with one promise taken out, each in a copy of its tree: what a checker that cannot fail would let pass.

Where it can be, a mutation stands in front of the operating system or the database's driver, so that it holds however
the receiver is written; otherwise it changes a line of the source, and says so when that line is no longer there.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import service
from tests.faults import challenges
from tests.faults.parts import Parts

HOUSE = Path(service.__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutant:
    """What is taken out, how, and the challenge that it must fall to."""

    name: str
    falls_to: Callable[[Parts], None]
    first: str = ""  # runs before anything else of the product
    replace: tuple[tuple[str, str, str], ...] = ()  # file, text, other text
    last: tuple[str, str] = ("", "")  # file, what is appended to it

    def grow(self, folder: Path) -> Path:
        """The mutated tree in ``folder``."""
        for name in ("service", "migrations"):
            shutil.copytree(HOUSE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
        (folder / "models").symlink_to(HOUSE / "models")
        if self.first:
            with (folder / "service" / "__init__.py").open("a") as source:
                source.write(self.first)
        for file, text, other in self.replace:
            path = folder / file
            source = path.read_text()
            assert text in source, f"the mutant '{self.name}' no longer fits {file}: write it anew"
            path.write_text(source.replace(text, other))
        file, text = self.last
        if file:
            with (folder / file).open("a") as source:
                source.write(f"\n\n{text}")
        return folder


SYNC = """
import os, stat
_sync = {"fsync": os.fsync, "fdatasync": os.fdatasync}
def _mutated(name):
    def call(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        %s
    return call
os.fsync, os.fdatasync = _mutated("fsync"), _mutated("fdatasync")
"""

LATE_COMMIT = """
import sqlite3, sys, threading
class _Late(sqlite3.Connection):
    late = None
    def commit(self):
        if self.in_transaction:
            self.late = threading.Timer(0.5, self.catch_up)
            self.late.daemon = True
            self.late.start()
    def catch_up(self):
        self.late = None
        super().commit()
    def rollback(self):
        if self.late is None:
            super().rollback()
    def cursor(self, *arguments):
        if self.late is not None:
            self.late.cancel()
            self.catch_up()
        return super().cursor(*arguments)
if sys.argv[-1] == "receive":
    _connect = sqlite3.connect
    def _late(*arguments, **options):
        options["factory"] = _Late
        return _connect(*arguments, **options)
    sqlite3.connect = sqlite3.dbapi2.connect = _late
"""

SHORT_WRITES = """
import os
_write, _pwritev = os.write, os.pwritev
def write(descriptor, data):
    _write(descriptor, data)
    return len(data)
def pwritev(descriptor, parts, position):
    _pwritev(descriptor, parts, position)
    return sum(map(len, parts))
os.write, os.pwritev = write, pwritev
"""

MUTANTS = (
    Mutant(
        "acknowledge before fsync",
        challenges.order_of_syncs,
        first=SYNC % "return _sync[name](descriptor) if folder else None",
    ),
    Mutant(
        "skip the sync of folders",
        challenges.filed_before_recycling,
        first=SYNC % "return None if folder else _sync[name](descriptor)",
        replace=(("service/archive/disk.py", "if _libc.syncfs(descriptor):", "if False:"),),
    ),
    Mutant(
        "synchronous=NORMAL",
        challenges.order_of_syncs,
        replace=(("service/db/session.py", "FULL", "NORMAL"),),
    ),
    Mutant(
        "ignore short writes",
        challenges.short_writes,
        first=SHORT_WRITES,
        replace=(("service/receive/incoming.py", "if written != ", "if False and written != "),),
    ),
    Mutant("commit after the answer", challenges.killed_at_the_answer, first=LATE_COMMIT),
    Mutant(
        "no check of the token",
        challenges.a_worker_that_sleeps_past_its_lease,
        replace=(  # a batch is asked for its tokens before it is recorded, and each row once more as it changes
            ("service/db/analyses.py", '_rows.c.token == bindparam("held_token")', 'bindparam("held_token") != ""'),
            ("service/db/analyses.py", "if tokens.get(held.analysis_id) == held.token", ""),
        ),
    ),
    Mutant(
        "sweeper off",
        challenges.a_worker_that_dies,
        last=("service/jobs/sweep.py", "Sweeper.sweep = lambda self: self.judge_the_settled()\n"),
    ),
    Mutant(
        "sync again after a failure",
        challenges.a_sync_that_fails,
        first=SYNC
        % """try:
            return _sync[name](descriptor)
        except OSError:
            return _sync[name](descriptor)""",
    ),
)
