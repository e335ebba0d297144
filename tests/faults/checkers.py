"""C1 to C6: what must hold between a sender's ledger and the product, whatever happened in between.

Each raises AssertionError and names the ledger, which says who sent what and when.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from threading import Event, Thread

from service.db.tables import AnalysisState
from tests.faults.inventory import TERMINAL, Inventory
from tests.faults.ledger import Ledger, Version


def no_loss(ledger: Ledger, inventory: Inventory) -> None:
    """C1: every acknowledged version has one row, and its archived data set has the digest that was sent."""
    held = {one.version: one for one in inventory.held}
    lost = [
        (version, held.get(version))
        for version in ledger.history().acknowledged
        if version not in held or held[version].archived_sha256 != version[1]
    ]
    assert not lost, f"C1: acknowledged and lost: {lost[:5]} of {len(lost)}; ledger {ledger.path}"
    assert inventory.integrity == "ok", f"the database is damaged: {inventory.integrity}; ledger {ledger.path}"


def no_orphan(ledger: Ledger, inventory: Inventory) -> None:
    """C2: once settled no file is without its row, no row without its file, and nothing temporary is left."""
    assert not inventory.files_without_row, f"C2: {inventory.files_without_row[:5]}; ledger {ledger.path}"
    without_file = [one.version for one in inventory.held if one.archived_sha256 is None]
    assert not without_file, f"C2: rows without a file {without_file[:5]}; ledger {ledger.path}"
    assert not inventory.temporary_files, f"C2: left over {inventory.temporary_files[:5]}; ledger {ledger.path}"


def no_invention(ledger: Ledger, inventory: Inventory) -> None:
    """C3: there is nothing that was not sent, nothing twice, and what was refused is absent or whole."""
    invented = set(inventory.versions) - ledger.history().invoked
    assert not invented, f"C3: nobody sent {list(invented)[:5]}; ledger {ledger.path}"
    doubled = [version for version, count in inventory.versions.items() if count > 1]
    assert not doubled, f"C3: stored twice {doubled[:5]}; ledger {ledger.path}"
    partial = [
        one.version
        for one in inventory.held
        if one.archived_sha256 is not None and (one.archived_sha256 != one.version[1] or one.archived_size != one.size)
    ]
    assert not partial, f"C3: half there {partial[:5]}; ledger {ledger.path}"


def one_verdict(ledger: Ledger, inventory: Inventory) -> None:
    """C4: every version has one analysis that counts and exactly one standing verdict."""
    wrong = [
        (one.version, one.states, one.standing_verdicts)
        for one in inventory.held
        if len(one.states) != 1 or one.standing_verdicts != 1
    ]
    assert not wrong, f"C4: {wrong[:5]}; ledger {ledger.path}"


def all_terminal(ledger: Ledger, inventory: Inventory) -> None:
    """C6: every version has come to an end, and where it was given up a person can read why."""
    waiting = [(one.version, one.states) for one in inventory.held if not set(one.states) <= TERMINAL or not one.states]
    assert not waiting, f"C6: still on the way {waiting[:5]} of {len(waiting)}; ledger {ledger.path}"
    silent = [one.version for one in inventory.held if AnalysisState.QUARANTINED in one.states and not any(one.reasons)]
    assert not silent, f"C6: given up without a reason {silent[:5]}; ledger {ledger.path}"


def settled(ledger: Ledger, take: Callable[[], Inventory], within_s: float = 60) -> Inventory:
    """Faults are off: C1 to C4 and C6 hold within the time given."""
    deadline = time.monotonic() + within_s
    while True:
        inventory = take()
        no_loss(ledger, inventory)
        no_invention(ledger, inventory)
        try:
            all_terminal(ledger, inventory)
            no_orphan(ledger, inventory)
            one_verdict(ledger, inventory)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
            continue
        return inventory


class Reader:
    """C5: a second client that looks at the dashboard all the while; what it was shown never turns out untrue.

    A verdict that was shown is there when the house has settled (so its row was committed), and an instance that was
    shown at its end is never shown on its way again.
    """

    def __init__(self, http_port: int, token: str, ledger: Ledger) -> None:
        self._port, self._token, self._ledger = http_port, token, ledger
        self._stop = Event()
        self._shown: dict[Version, tuple[str, str | None]] = {}
        self._faults: list[str] = []
        self._thread = Thread(target=self._run)
        self.looks = 0

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if kind is None:
            assert not self._faults, f"C5: {self._faults[:5]}; ledger {self._ledger.path}"

    def confirm(self) -> None:
        """The house has settled: every verdict that was ever shown stands."""
        for version, (_, verdict) in list(self._shown.items()):
            if verdict is not None:
                now = self._look(version)
                assert now is not None and now[1] == verdict, f"C5: {version} showed {verdict}, now {now}"

    def _run(self) -> None:
        while not self._stop.is_set():
            for version in sorted(self._ledger.history().invoked):
                if self._stop.is_set():
                    break
                self._compare(version)
                time.sleep(0.02)
            time.sleep(0.05)

    def _compare(self, version: Version) -> None:
        seen = self._look(version)
        if seen is None:
            if version in self._shown and self.looks and self._reachable:
                self._faults.append(f"{version} was shown and is gone")
            return
        self.looks += 1
        before = self._shown.get(version)
        if before and before[0] in {"done", "quarantined"} and seen[0] not in {"done", "quarantined"}:
            self._faults.append(f"{version} went from {before} back to {seen}")
        self._shown[version] = seen

    def _look(self, version: Version) -> tuple[str, str | None] | None:
        uid, digest = version
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/api/instances/{uid}?sha256={digest}",
            headers={"Authorization": f"Bearer {self._token}"},
        )
        self._reachable = False
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            self._reachable = error.code == 404
            return None
        except OSError:
            return None
        return found["state"], found["verdict"]
