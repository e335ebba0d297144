"""Receive to verdict as a state machine: hypothesis draws what senders, operators and bad luck do, in any order.

The model is small: what was sent, what was acknowledged, and how far each version was seen to be. The system is a
receiver, a worker and a sweeper as processes, on a folder of their own for each example.
"""

import shutil
import signal
import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.db.tables import AnalysisState
from tests.faults import checkers
from tests.faults.images import Image, image, new_uid
from tests.faults.inventory import TERMINAL
from tests.faults.ledger import Version
from tests.faults.parts import Parts
from tests.faults.points import failpoints, victim
from tests.faults.proxy import FaultProxy
from tests.faults.sender import OUT_OF_RESOURCES, SUCCESS, Association, send

PARTS = ("receive", "work", "sweep")
ANSWERED = {SUCCESS, OUT_OF_RESOURCES, None}
DOOR_POINTS = [point for point in failpoints() if victim(point) == "receive"]
WORK_POINTS = [point for point in failpoints() if victim(point) == "work"]
MODES = ("cut 100", "cut 3000", "rst 3000", "half 3000", "rate 500000", "delay 5")


class ReceiveToVerdict(RuleBasedStateMachine):
    """Whatever happens: what was acknowledged is kept, and ends with one verdict."""

    folder: Path  # of all examples
    weights: Path  # of a network that costs nothing
    empty_database: Path

    def __init__(self) -> None:
        super().__init__()
        here = Path(tempfile.mkdtemp(dir=self.folder))
        settings = {"NETWORK": str(self.weights), "LEASE_S": "1", "MAX_ATTEMPTS": "50", "READ_TIMEOUT_S": "3"}
        self.house = Parts(here / "data", here / "logs", settings | {"NETWORK_TIMEOUT_S": "5"})
        self.house.data.mkdir()
        self.house.logs.mkdir()
        shutil.copy(self.empty_database, self.house.data)
        self.ledger = self.house.new_ledger("sender")
        self.sent: list[Image] = []
        self.ended: dict[Version, AnalysisState] = {}
        self.changed = False
        for part in PARTS:
            self.house.start(part, wait=False)
        self._open()

    @rule(elements=st.fixed_dictionaries({}, optional={"InstanceNumber": st.integers(1, 9)}))
    def store(self, elements: dict[str, int]) -> None:
        self._send(image(columns=64, rows=56, **elements))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 99))
    def store_again(self, which: int) -> None:
        self._send(self.sent[which % len(self.sent)])

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 99))
    def store_other_content_under_the_same_uid(self, which: int) -> None:
        self._send(image(self.sent[which % len(self.sent)].uid, columns=64, rows=56))

    @rule(senders=st.integers(2, 6), same=st.booleans())
    def store_from_many_at_once(self, senders: int, same: bool) -> None:
        one = image(columns=64, rows=56)
        images = [one if same else image(columns=64, rows=56, study=new_uid()) for _ in range(senders)]
        self.sent += images
        with ThreadPoolExecutor(senders) as pool:
            answers = list(pool.map(lambda each: send(self.house.dicom_port, self.ledger, [each]), images))
        assert {status for each in answers for status in each} <= ANSWERED, answers
        self.changed = True

    @rule(mode=st.sampled_from(MODES))
    def store_over_a_bad_network(self, mode: str) -> None:
        one = image(columns=64, rows=56)
        self.sent.append(one)
        with FaultProxy(self.house.dicom_port, mode) as proxy:
            assert send(proxy.port, self.ledger, [one], timeout=3)[0] in ANSWERED
        self.changed = True

    @precondition(lambda self: self.house.runs("receive"))
    @rule(share=st.floats(0, 1), abort=st.booleans())
    def store_half(self, share: float, abort: bool) -> None:
        one = image(columns=64, rows=56)
        self.ledger.invoke(one.version)
        try:
            association = Association(self.house.dicom_port, [(one.sop_class, one.syntax)])
            wire = b"".join(association.pdus(one))
            association.socket.sendall(wire[: int(share * (len(wire) - 1))])
            (association.abort if abort else association.close)()
        except OSError:
            pass
        self.ledger.info(one.version, "left")
        self.changed = True

    @rule(part=st.sampled_from(PARTS))
    def kill(self, part: str) -> None:
        if part in self.house.processes:
            self.house.kill(part)

    @rule(part=st.sampled_from(PARTS))
    def terminate(self, part: str) -> None:
        if self.house.runs(part):
            self.house.terminate(part)

    @rule(part=st.sampled_from(("receive", "work")), seconds=st.sampled_from((0.2, 1.5)))
    def freeze(self, part: str, seconds: float) -> None:
        if self.house.runs(part):
            self.house.freeze(part)
            time.sleep(seconds)
            self.house.kill(part, signal.SIGCONT)

    @rule(point=st.sampled_from(DOOR_POINTS), action=st.sampled_from(("kill", "eio", "enospc")), hit=st.integers(1, 3))
    def restart_the_door_with_a_fault(self, point: str, action: str, hit: int) -> None:
        # A call that cannot fail where it stands cannot be made to.
        chosen = action if point == "receive.before_fsync" else "kill"
        self._restart("receive", FAILPOINTS=f"{point}={chosen}@{hit}")
        self._open()

    @rule(point=st.sampled_from(WORK_POINTS))
    def restart_the_worker_with_a_fault(self, point: str) -> None:
        self._restart("work", FAILPOINTS=f"{point}=kill@1")

    @rule()
    def start_what_is_down(self) -> None:
        for part in PARTS:
            if not self.house.runs(part):
                self._restart(part)
        self._open()

    @rule()
    def lose_the_queue(self) -> None:
        shutil.rmtree(self.house.data / "spool", ignore_errors=True)

    @rule(seconds=st.sampled_from((0.1, 1.0)))
    def lock_the_database(self, seconds: float) -> None:
        one = image(columns=64, rows=56)
        self.sent.append(one)
        with closing(sqlite3.connect(self.house.data / "sonomark.sqlite", timeout=20, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(send, self.house.dicom_port, self.ledger, [one])
                time.sleep(seconds)
                other.rollback()
                assert answer.result()[0] in ANSWERED
        self.changed = True

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        if not self.changed:
            return
        self.changed = False
        inventory = self.house.inventory()
        checkers.no_loss(self.ledger, inventory)
        checkers.no_invention(self.ledger, inventory)
        for one in inventory.held:
            assert len(one.states) <= 1 and one.standing_verdicts <= 1, one
            before = self.ended.get(one.version)
            assert before is None or one.states == (before,), f"{one.version} went from {before} to {one.states}"
            if set(one.states) <= TERMINAL and one.states:
                self.ended[one.version] = one.states[0]

    def teardown(self) -> None:
        """Faults off: everything comes to an end, and every sender that tries again is served."""
        try:
            for part in PARTS:
                if not self.house.runs(part) or part in self._armed:
                    self._restart(part)
            self._open()
            versions = self.ledger.history().unknown
            waiting = [one for one in {each.version: each for each in self.sent}.values() if one.version in versions]
            assert send(self.house.dicom_port, self.ledger, waiting) == [SUCCESS] * len(waiting)
            checkers.settled(self.ledger, self.house.inventory, 60)
        finally:
            self.house.stop()
        print(f"{len(self.ledger.history().acknowledged)} acknowledged, ledger {self.ledger.path}")

    def _send(self, one: Image) -> None:
        self.sent.append(one)
        answers = send(self.house.dicom_port, self.ledger, [one])
        assert set(answers) <= ANSWERED, answers
        assert answers != [None] or not self.house.runs("receive") or "receive" in self._armed, (
            "a healthy door said nothing"
        )
        self.changed = True

    def _restart(self, part: str, **settings: str) -> None:
        if part in self.house.processes:
            self.house.kill(part)
        self._armed = self._armed | {part} if settings else self._armed - {part}
        self.house.start(part, wait=False, **settings)

    def _open(self) -> None:
        """Wait until the door listens, or has fallen to its fault."""
        deadline = time.monotonic() + 60
        while self.house.runs("receive") and not self.house.listens():
            assert time.monotonic() < deadline, self.house.tails()
            time.sleep(0.02)

    _armed: frozenset[str] = frozenset()  # parts with a failpoint in them
