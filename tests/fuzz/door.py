"""Damaged associations and data sets against a receiver that runs: it answers or hangs up, and goes on."""

import random
import socket
import time
from collections import Counter
from contextlib import suppress

import psutil

from tests.faults.images import US_IMAGE, Image, image
from tests.faults.parts import Parts
from tests.faults.sender import SUCCESS, Association, associate_request, send, store_pdus
from tests.fuzz.mutations import Mutator

STATUSES = {0x0000, 0xA700, 0xA900, 0xC000}
CONTEXTS = {1: (US_IMAGE, "1.2.840.10008.1.2.1"), 3: (US_IMAGE, "1.2.840.10008.1.2")}
LOOK_EVERY = 250


def damage(house: Parts, inputs: int, seed: int) -> Counter[str]:
    """So many inputs: damaged requests, damaged streams behind a good request, damaged data sets in good PDUs.

    Raises AssertionError when the receiver dies, hangs, forgets a sender, grows, or answers what is no status.
    """
    drawn = random.Random(seed)
    one = image(columns=32, rows=24)
    request = associate_request(CONTEXTS, "US01", "SONOMARK")
    requests = Mutator(seed, [request])
    streams = Mutator(seed + 1, [b"".join(store_pdus(1, 1, one)), b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"])
    data_sets = Mutator(seed + 2, [one.data])
    receiver = psutil.Process(house.processes["receive"].pid)
    healthy(house)
    memory = receiver.memory_info().rss
    ends: Counter[str] = Counter()
    association: Association | None = None
    for number in range(inputs):
        kind = drawn.random()
        if kind < 0.15:
            ends[f"request {_shout(house, requests.next())}"] += 1
        elif kind < 0.3:
            ends[f"stream {_shout(house, request, streams.next())}"] += 1
        else:
            association = association or Association(house.dicom_port, CONTEXTS.values(), timeout=20)
            try:
                status = association.store(Image(one.uid, data_sets.next()))
                assert status in STATUSES, f"input {number} of seed {seed}: status {status:#06x}"
                ends[f"data set {status:#06x}"] += 1
            except OSError as error:
                raise AssertionError(f"input {number} of seed {seed} got no answer: {error!r}") from error
        if number % LOOK_EVERY == 0:
            healthy(house)
    healthy(house)
    grown = (receiver.memory_info().rss - memory) >> 20
    assert grown < 100, f"the receiver grew by {grown} MB"
    return ends


def healthy(house: Parts) -> None:
    """A good sender is served at once."""
    began = time.monotonic()
    assert send(house.dicom_port, house.new_ledger("healthy"), [image(columns=32, rows=24)]) == [SUCCESS], house.tails()
    assert time.monotonic() - began < 20
    _, found, rest = house.log("receive").read_text(errors="replace").partition("Traceback")
    assert not found, f"Traceback{rest[:4000]}"


def _shout(house: Parts, *pieces: bytes) -> str:
    """Say it, say that nothing follows, and see how it ends."""
    with socket.create_connection(("127.0.0.1", house.dicom_port), timeout=5) as connection:
        with suppress(OSError):
            connection.sendall(b"".join(pieces))
            connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(65536):
                pass
        except TimeoutError:
            raise AssertionError("the receiver keeps a connection whose sender has left") from None
        except OSError:
            return "reset"
    return "closed"
