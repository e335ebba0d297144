"""What a sender knows: a file it appends to, with fsync, outside of the file system that is made to fail.

``invoke`` goes down before the first byte is sent; then ``ok`` (0x0000 came), ``fail`` (another status came) or
``info``: no answer, so the instance may be there or not, but never half.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

Version = tuple[str, str]  # SOP Instance UID, SHA-256 of the data set's bytes


@dataclass(frozen=True)
class History:
    """What a ledger says, version by version."""

    invoked: frozenset[Version]
    acknowledged: frozenset[Version]
    statuses: dict[Version, tuple[int, ...]]  # failures that were answered

    @property
    def unknown(self) -> frozenset[Version]:
        """Sent, and never answered with Success."""
        return self.invoked - self.acknowledged


class Ledger:
    """One sender's, or one test's, ledger. Safe to call from many threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = Lock()

    def invoke(self, version: Version) -> None:
        self._append("invoke", version)

    def ok(self, version: Version) -> None:
        self._append("ok", version)

    def fail(self, version: Version, status: int) -> None:
        self._append("fail", version, status=status)

    def info(self, version: Version, why: str) -> None:
        self._append("info", version, why=why)

    def cut(self, at: float) -> None:
        """The power was cut at this time: what was answered afterwards no sender would have heard.

        The kernel stands in for the power and needs a moment, in which a sync may still return as if it had worked.
        """
        self._append("cut", ("", ""), at=at)

    def history(self) -> History:
        """Everything so far, read back from the file."""
        entries: list[dict[str, Any]] = []
        for line in self.path.read_text().splitlines():
            entry = json.loads(line)
            if entry["kind"] == "cut":
                entries = [one for one in entries if one["kind"] != "ok" or one["t"] < entry["at"]]
            else:
                entries.append(entry)
        statuses: dict[Version, tuple[int, ...]] = {}
        for entry in entries:
            if entry["kind"] == "fail":
                version = (entry["uid"], entry["sha256"])
                statuses[version] = (*statuses.get(version, ()), entry["status"])
        return History(_versions(entries, "invoke"), _versions(entries, "ok"), statuses)

    def _append(self, kind: str, version: Version, **more: object) -> None:
        entry = {"kind": kind, "uid": version[0], "sha256": version[1], "t": time.time(), **more}
        with self._lock:
            os.write(self._descriptor, json.dumps(entry).encode() + b"\n")
            os.fsync(self._descriptor)


def _versions(entries: list[dict[str, Any]], kind: str) -> frozenset[Version]:
    return frozenset((entry["uid"], entry["sha256"]) for entry in entries if entry["kind"] == kind)
