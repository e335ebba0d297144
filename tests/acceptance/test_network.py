"""P11: over a slow, cut or half network a sender learns the truth or nothing, and nothing of it stays behind."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest

from tests.faults import checkers
from tests.faults.images import image
from tests.faults.parts import Parts
from tests.faults.proxy import FaultProxy
from tests.faults.sender import P_DATA, SUCCESS, Association, associate_request, send, store_pdus

pytestmark = pytest.mark.acceptance
MakeParts = Callable[..., Parts]
ONE = image(columns=320, rows=240)
REQUEST = associate_request({1: (ONE.sop_class, ONE.syntax)}, "US01", "SONOMARK")
WHOLE = len(REQUEST) + sum(map(len, store_pdus(1, 1, ONE)))
CUTS = [0, 6, 100, 3000, WHOLE // 2, WHOLE - 100]  # UIDs are not all of one length
READ_TIMEOUT_S, IDLE_S = 3, 5


@pytest.fixture
def house(make_parts: MakeParts) -> Iterator[Parts]:
    parts = make_parts(READ_TIMEOUT_S=str(READ_TIMEOUT_S), NETWORK_TIMEOUT_S=str(IDLE_S))
    parts.start("receive")
    yield parts


def test_a_network_that_fails_leaves_nothing_half(house: Parts) -> None:
    ledger = house.new_ledger("network")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    receiver = psutil.Process(house.processes["receive"].pid)
    baseline = receiver.num_threads(), receiver.num_fds()
    modes = [f"{how} {count}" for how in ("cut", "rst", "half") for count in CUTS] + ["blackhole"]
    with FaultProxy(house.dicom_port) as proxy, ThreadPoolExecutor(4) as senders:
        for mode in modes:
            proxy.mode = mode
            answers = list(
                senders.map(lambda _: send(proxy.port, ledger, [image(columns=320, rows=240)], timeout=4), range(2))
            )
            assert answers == [[None], [None]], mode
        checkers.no_invention(ledger, house.inventory())
        proxy.mode = "rate 400000"
        assert send(proxy.port, ledger, [image(columns=320, rows=240)]) == [SUCCESS]
        proxy.mode = "delay 20"
        assert send(proxy.port, ledger, [image(columns=320, rows=240)]) == [SUCCESS]
        _freed(house, receiver, baseline)
    inventory = house.inventory()
    checkers.no_loss(ledger, inventory)
    checkers.no_invention(ledger, inventory)
    assert len(inventory.held) == 3
    house.start("work")
    house.start("sweep")
    checkers.settled(ledger, house.inventory, 60)


def test_senders_that_leave_without_a_word(house: Parts, seed: int) -> None:
    """Aborted, cut off, and released in the middle of a data set, at random places of it."""
    places = random.Random(seed)
    ledger = house.new_ledger("leavers")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    receiver = psutil.Process(house.processes["receive"].pid)
    baseline = receiver.num_threads(), receiver.num_fds()
    for number in range(24):
        one = image(columns=320, rows=240)
        ledger.invoke(one.version)
        association = Association(house.dicom_port, [(one.sop_class, one.syntax)])
        wire = b"".join(association.pdus(one))
        association.socket.sendall(wire[: places.randrange(1, len(wire))])
        leave = (association.abort, association.close, association.release, lambda: None)[number % 4]
        association.socket.settimeout(1)
        with suppress(OSError):
            leave()
        if number % 4 != 3:
            association.close()
        ledger.info(one.version, leave.__name__)
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    _freed(house, receiver, baseline)
    inventory = house.inventory()
    checkers.no_invention(ledger, inventory)
    assert len(inventory.held) == 2
    house.start("work")
    house.start("sweep")
    checkers.settled(ledger, house.inventory, 60)


def test_slow_loris_in_the_middle_of_a_data_set_starves_nobody(house: Parts) -> None:
    """Twenty associations that send one byte a second of a PDU: others are served meanwhile, the slow are cut off."""
    ledger = house.new_ledger("loris")
    one = image()
    slow = [Association(house.dicom_port, [(one.sop_class, one.syntax)]) for _ in range(20)]
    for association in slow:
        association.socket.sendall(struct.pack(">BBI", P_DATA, 0, 60_000))
    began = time.monotonic()
    open_ = list(slow)
    served = 0
    while open_ and time.monotonic() - began < 30:
        assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
        served += 1
        for association in list(open_):
            association.socket.settimeout(0.001)
            try:
                association.socket.send(b"\x00")
                if association.socket.recv(1) == b"":
                    open_.remove(association)
            except TimeoutError:
                continue
            except OSError:
                open_.remove(association)
        time.sleep(0.5)
    assert not open_, "slow senders were never cut off"
    assert served >= 2
    inventory = house.inventory()
    checkers.no_loss(ledger, inventory)
    assert len(inventory.held) == served


def _freed(house: Parts, receiver: psutil.Process, baseline: tuple[int, int], within_s: float = 30) -> None:
    """Threads and descriptors are back to what they were, save a pooled connection or two."""
    deadline = time.monotonic() + within_s
    while (now := (receiver.num_threads(), receiver.num_fds())) and time.monotonic() < deadline:
        if now[0] <= baseline[0] + 2 and now[1] <= baseline[1] + 12:
            return
        time.sleep(0.2)
    raise AssertionError(f"threads and descriptors {now}, at first {baseline}\n{house.tails()}")
