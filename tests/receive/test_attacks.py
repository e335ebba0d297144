"""Attacks on the door, spoken over raw sockets: none locks anybody out, none takes memory, none leaves a trace."""

import socket
import struct
import time

import psutil
from pydicom.uid import ExplicitVRLittleEndian

from tests.receive.conftest import US_IMAGE, RunningReceiver, StartReceiver, ultrasound


def connect(receiver: RunningReceiver) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=30)


def closed_within(connection: socket.socket, seconds: float) -> bool:
    """True when the receiver closes or aborts the connection in time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def associates(receiver: RunningReceiver) -> bool:
    sender = receiver.associate()
    established = bool(sender.is_established)
    sender.release()
    return established


def test_fifty_sockets_with_one_byte_each_lock_nobody_out(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(MAX_ASSOCIATIONS="8", READ_TIMEOUT_S="4")
    silent = [connect(receiver) for _ in range(50)]
    for connection in silent:
        connection.send(b"\x01")
    assert associates(receiver)
    assert closed_within(silent[0], 5)
    for connection in silent:
        connection.close()


def test_a_body_that_drips_is_cut_off(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(READ_TIMEOUT_S="2")
    connection = connect(receiver)
    connection.send(b"\x01\x00" + struct.pack(">I", 1000))
    began = time.monotonic()
    connection.settimeout(0.5)
    open_ = True
    while open_ and time.monotonic() - began < 10:
        try:
            connection.send(b"x")
            open_ = connection.recv(10) != b""
        except TimeoutError:
            continue
        except OSError:
            open_ = False
    assert not open_


def test_a_pdu_of_four_gigabytes_is_refused_before_its_body(receiver: RunningReceiver) -> None:
    process = psutil.Process(receiver.process.pid)
    before = process.memory_info().rss
    for pdu_type in (0x01, 0x04):
        connection = connect(receiver)
        connection.send(bytes([pdu_type, 0]) + b"\xff\xff\xff\xff")
        assert closed_within(connection, 5)
    sender = receiver.associate()
    sender.dul.socket.socket.sendall(b"\x04\x00\xff\xff\xff\xff")
    deadline = time.monotonic() + 5
    while sender.is_established and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not sender.is_established
    assert process.memory_info().rss - before < 20 << 20


def test_a_request_above_256_kb_is_refused(receiver: RunningReceiver) -> None:
    connection = connect(receiver)
    connection.send(b"\x01\x00" + struct.pack(">I", 1_300_000))
    assert closed_within(connection, 5)


def test_what_is_no_association_request_is_closed(receiver: RunningReceiver) -> None:
    for sent in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x77\x00\x00\x00\x00\x04abcd",
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03",
        b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x00\x10" + b"\x00" * 16,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    ):
        connection = connect(receiver)
        connection.send(sent)
        assert closed_within(connection, 15)
    assert "Traceback" not in receiver.log.read_text()
    assert associates(receiver)


def test_truncated_requests_leave_no_threads(receiver: RunningReceiver) -> None:
    associates(receiver)
    process = psutil.Process(receiver.process.pid)
    baseline = process.num_threads()
    lengths = range(0, 40, 4)
    for length in lengths:
        connection = connect(receiver)
        connection.send((b"\x01\x00\x00\x00\x00\x44" + b"\x00" * 68)[:length])
        connection.close()
    deadline = time.monotonic() + 15
    # The receiver's own threads (heartbeat, bell) may come and go by one or two; a leak is one a connection.
    while process.num_threads() > baseline + 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.num_threads() < baseline + len(lengths) // 2


def test_associations_are_limited_and_freed(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(MAX_ASSOCIATIONS="2")
    first, second = receiver.associate(), receiver.associate()
    third = receiver.associate()
    assert third.is_rejected
    assert "too many associations" in receiver.log.read_text()
    first.release()
    second.abort()
    deadline = time.monotonic() + 5
    while not associates(receiver) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert associates(receiver)


def test_idle_associations_are_dropped(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(NETWORK_TIMEOUT_S="1")
    idle = receiver.associate()
    deadline = time.monotonic() + 10
    while idle.is_established and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not idle.is_established


def test_peers(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(PEERS="US01@127.0.0.0/8,US02@10.9.9.9,PACS")
    context = (US_IMAGE, ExplicitVRLittleEndian)
    assert receiver.associate(context, ae_title="US01").is_established
    assert receiver.associate(context, ae_title="PACS").is_established
    assert receiver.associate(context, ae_title="US02").is_rejected
    assert receiver.associate(context, ae_title="STRANGER").is_rejected
    assert receiver.associate(context, ae_title="US01", called="OTHER").is_rejected
    log = receiver.log.read_text()
    assert "OPEN TO ALL" not in log
    assert "called AE title not recognised" in log


def test_open_to_all_is_said_loudly(receiver: RunningReceiver) -> None:
    assert "OPEN TO ALL" in receiver.log.read_text()
    assert receiver.store(ultrasound(), ae_title="ANYBODY") == [0]
