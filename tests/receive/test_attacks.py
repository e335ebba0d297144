"""Attacks on the door, spoken over raw sockets: none locks anybody out, none takes memory, none leaves a trace.

The checklist, and where each line of it is answered; tests that name no file are here, D8 to D19 in test_poisoned:

| | attack | test |
|---|---|---|
| D1 | associations that say one byte | `test_fifty_sockets_with_one_byte_each_lock_nobody_out` |
| D2 | a body that drips | `test_a_body_that_drips_is_cut_off`; mid data set: `acceptance/test_network`; |
| | | answers that nobody reads: `test_a_peer_that_reads_no_answers_is_cut_off` |
| D3 | a PDU length of 4 GiB | `test_a_pdu_of_four_gigabytes_is_refused_before_its_body` |
| D4 | a flood of connections | `test_a_flood_of_silent_connections_leaves_no_threads`, |
| | | `test_associations_are_limited_and_freed`, `test_senders_who_hang_up_at_once_take_no_place`, |
| | | `test_a_connection_that_cannot_be_served_takes_no_place`, `test_a_door_without_descriptors_waits_for_some`, |
| | | `test_connections_beyond_the_thousandth_descriptor_are_served` |
| D5 | no DICOM at all, truncation | `test_what_is_no_association_request_is_closed`, `test_what_comes_too_early_…`, |
| | | `test_truncated_requests_leave_no_threads` |
| D6 | an association request of 1.3 MB, contexts of thousands of syntaxes | `test_a_request_above_256_kb_is_refused`, |
| | | `test_a_request_of_empty_syntaxes_costs_little` |
| D7 | AE titles and addresses not on the list | `test_peers`, `test_peers_of_ipv4_call_a_door_of_ipv6`, |
| | | `test_open_to_all_is_said_loudly` |
| D8 | UIDs that are paths, commands, too long or empty | `test_uids_of_the_command_never_become_paths`, |
| | | `test_a_command_that_nobody_foresaw_takes_its_connection_along` |
| D9 | a command that speaks of another instance | `test_cstore.test_data_set_and_command_must_agree` |
| D10 | a bomb of deflated zeros | `test_a_deflated_bomb_is_not_even_negotiated` |
| D11 | sequences nested by the thousand | `test_cstore.test_what_is_no_data_set_is_refused` |
| D12 | element lengths that lie | `test_lengths_that_lie_are_refused`; short pixel data: `jobs/test_faults` |
| D13 | images larger than memory | `test_headers_of_impossible_images_cost_nothing`; decoding: `jobs/test_faults` |
| D14 | codestreams that eat memory or time | `jobs/test_faults.test_poison_is_quarantined_after_its_attempts…` |
| D15 | a file meta group, doubled elements or VRs that are none | `test_odd_data_sets_are_stored_or_refused_at_once` |
| D16 | a preamble that makes the file a program | `test_the_archive_writes_preambles_of_its_own` |
| D17 | character sets and names made to break something | `test_names_made_to_break_something_stay_text` |
| D18 | DICOMDIR with a path in it | `test_there_is_no_reader_of_dicomdirs` |
| D19 | a shell reached by a name | `test_nothing_starts_a_shell` |
| D20 | commitment of what is not stored, or of a huge list | `test_commitment` |
| D21 | TLS without certificate, of another CA, old, plain, half | `test_tls` |
"""

import resource
import socket
import struct
import time
from contextlib import ExitStack, suppress

import psutil
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from service.receive.upper_layer import ABORT
from tests.faults.images import Image
from tests.faults.sender import A_ASSOCIATE_AC, associate_request, p_data, store_pdus, store_request
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


def test_what_comes_too_early_ends_the_association_at_once(receiver: RunningReceiver) -> None:
    """A PDU right behind the request, before its acceptance: both sides act at once, and no state foresees that."""
    request = associate_request({1: (US_IMAGE, ExplicitVRLittleEndian)}, "US01", "SONOMARK")
    for early in (bytes.fromhex("0400000000020000"), bytes.fromhex("050000000000000420fffffff0fefd")) * 15:
        with connect(receiver) as connection:
            connection.sendall(request + early)
            connection.shutdown(socket.SHUT_WR)
            assert closed_within(connection, 5)
    assert "Traceback" not in receiver.log.read_text()
    assert receiver.store(ultrasound()) == [0]


@pytest.mark.parametrize("context_id", [0, 2, 128])
def test_a_request_that_cannot_be_understood_is_answered_at_once(receiver: RunningReceiver, context_id: int) -> None:
    """Context ids are odd (PS3.8 section 9.3.2.2). pynetdicom's thread died of others, and the connection stayed."""
    with connect(receiver) as connection:
        connection.sendall(associate_request({context_id: (US_IMAGE, ExplicitVRLittleEndian)}, "US01", "SONOMARK"))
        connection.settimeout(5)
        assert connection.recv(16) == bytes.fromhex("07000000000400000206")  # A-ABORT, invalid parameter value
        assert closed_within(connection, 5)
    assert "Traceback" not in receiver.log.read_text()
    assert receiver.store(ultrasound()) == [0]


def test_a_command_that_nobody_foresaw_takes_its_connection_along(receiver: RunningReceiver) -> None:
    """Here a UID that is longer than a file's head can tell. Nobody was told, and the connection stayed open."""
    with connect(receiver) as connection:
        connection.sendall(associate_request({1: (US_IMAGE, ExplicitVRLittleEndian)}, "US01", "SONOMARK"))
        connection.settimeout(5)
        assert connection.recv(4096)[0] == A_ASSOCIATE_AC
        connection.sendall(p_data(1, store_request(1, US_IMAGE, "1." + "2" * 70_000), is_command=True))
        assert connection.recv(16) == ABORT
        assert closed_within(connection, 5)
    receiver.wait_for("association failed, connection closed")
    assert receiver.store(ultrasound()) == [0]


FAILING = "from pynetdicom.acse import ACSE; ACSE.negotiate_association = lambda self: 1 / 0"


def test_an_association_that_fails_takes_its_connection_along(start_receiver: StartReceiver) -> None:
    """Else the connection stays, and its seat, until the peer has had enough."""
    receiver = start_receiver(before=FAILING, MAX_ASSOCIATIONS="1")
    for _ in range(3):
        with connect(receiver) as connection:
            connection.sendall(associate_request({1: (US_IMAGE, ExplicitVRLittleEndian)}, "US01", "SONOMARK"))
            connection.settimeout(5)
            assert connection.recv(16) == ABORT
            assert closed_within(connection, 5)
    assert "Traceback" not in receiver.log.read_text()


NO_THREAD = """
from threading import Thread
from service.receive import association
association.MOST_CONNECTIONS_OF_AN_ADDRESS = 4
start, refused = Thread.start, []
def refuses_at_first(self):
    if "process_request_thread" in self.name and len(refused) < 8:
        refused.append(self)
        raise RuntimeError("can't start new thread")
    start(self)
Thread.start = refuses_at_first
"""
NO_NAMES = """
from service.receive import association
association.MOST_CONNECTIONS_OF_AN_ADDRESS = 4
names_of, failed = association.names_of, []
def fails_at_first(connection):
    if len(failed) < 8:
        failed.append(connection)
        raise RuntimeError("made to fail")
    return names_of(connection)
association.names_of = fails_at_first
"""


@pytest.mark.parametrize("before", [NO_THREAD, NO_NAMES], ids=["no thread", "no association"])
def test_a_connection_that_cannot_be_served_takes_no_place(start_receiver: StartReceiver, before: str) -> None:
    """Else an address would be shut out for ever once so many of its connections had come at a bad moment."""
    receiver = start_receiver(before=before)
    for _ in range(8):
        with connect(receiver) as connection:
            assert closed_within(connection, 5)
    assert associates(receiver)
    assert receiver.log.read_text().count("connection not served") == 8
    assert "Traceback" not in receiver.log.read_text()


def test_a_door_without_descriptors_waits_for_some(start_receiver: StartReceiver) -> None:
    """It tries now and then, and says so, in place of a core's time for nothing."""
    receiver = start_receiver()
    process = psutil.Process(receiver.process.pid)
    most = process.num_fds() + 8
    process.rlimit(psutil.RLIMIT_NOFILE, (most, most))
    with ExitStack() as silent:
        for _ in range(16):
            silent.enter_context(connect(receiver))
        receiver.wait_for("no connection can be taken")
        time.sleep(1)
        assert receiver.log.read_text().count("no connection can be taken") < 10
    deadline = time.monotonic() + 15
    while not associates(receiver) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert associates(receiver)


MANY_DESCRIPTORS = """
import os, resource
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
"""


def test_connections_beyond_the_thousandth_descriptor_are_served(start_receiver: StartReceiver) -> None:
    """A flood from a few addresses takes so many, where the system allows it; `select` knows 1024."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this machine allows fewer descriptors")
    receiver = start_receiver(before=MANY_DESCRIPTORS)
    assert receiver.store(ultrasound()) == [0]


def test_who_hangs_up_before_a_request_takes_no_place(receiver: RunningReceiver) -> None:
    """More than one address may have open at once, within the time that a request may take."""
    for round_ in range(3):
        for number in range(100):
            with connect(receiver) as stranger:
                stranger.sendall((b"\x01\x00\x00", b"GET / HTTP/1.0\r\n\r\n", b"")[(number + round_) % 3])
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


def test_senders_who_hang_up_at_once_take_no_place(start_receiver: StartReceiver) -> None:
    """Asked for and given up, an association is over before it began: it must not count as open for ever."""
    receiver = start_receiver(MAX_ASSOCIATIONS="4")
    request = associate_request({1: (US_IMAGE, ExplicitVRLittleEndian)}, "US01", "SONOMARK")
    for number in range(80):
        connection = connect(receiver)
        connection.sendall(request)
        if number % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    deadline = time.monotonic() + 10
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


def test_a_peer_that_reads_no_answers_is_cut_off(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(READ_TIMEOUT_S="1")
    process = psutil.Process(receiver.process.pid)
    nonsense = Image(uid="1.2.3", data=b"no data set", sop_class=US_IMAGE, syntax=ExplicitVRLittleEndian)
    requests = b"".join(store_pdus(1, 1, nonsense)) * 100
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    deaf.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # so that the receiver's buffer is small too
    deaf.settimeout(20)
    deaf.connect(("127.0.0.1", receiver.port))
    deaf.sendall(associate_request({1: (US_IMAGE, ExplicitVRLittleEndian)}, "US01", "SONOMARK"))
    assert deaf.recv(4096)[0] == A_ASSOCIATE_AC
    before = process.num_threads()
    with pytest.raises((ConnectionError, BrokenPipeError)):
        while True:
            deaf.sendall(requests)
    deadline = time.monotonic() + 10
    while process.num_threads() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert process.num_threads() <= before
    assert associates(receiver) and "Traceback" not in receiver.log.read_text()


HELD_UP = """
import time
from service.receive.upper_layer import UpperLayer
read = UpperLayer._read_pdu_data
def read_and_held_up(self):
    read(self)
    time.sleep(0.4)
UpperLayer._read_pdu_data = read_and_held_up
"""


def test_busy_associations_are_not_idle(start_receiver: StartReceiver) -> None:
    """Also when the thread that reads is held up just where pynetdicom's other one looks how long nothing has come."""
    receiver = start_receiver(before=HELD_UP, NETWORK_TIMEOUT_S="1")
    busy = receiver.associate()
    for _ in range(6):
        assert busy.send_c_store(ultrasound()).get("Status") == 0
        time.sleep(0.3)
    busy.release()
    assert busy.is_released and "association aborted" not in receiver.log.read_text()


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


def test_peers_of_ipv4_call_a_door_of_ipv6(start_receiver: StartReceiver) -> None:
    """Which hears both: there 127.0.0.1 has another name."""
    try:
        receiver = start_receiver(PEERS="US01@127.0.0.0/8,US02@10.9.9.9", DICOM_HOST="::")
    except AssertionError:
        pytest.skip("no IPv6 here")
    assert receiver.associate(ae_title="US01").is_established
    assert receiver.associate(ae_title="US02").is_rejected


def test_open_to_all_is_said_loudly(receiver: RunningReceiver) -> None:
    assert "OPEN TO ALL" in receiver.log.read_text()
    assert receiver.store(ultrasound(), ae_title="ANYBODY") == [0]


MEGABYTE = 1 << 20


def test_a_flood_of_silent_connections_leaves_no_threads(start_receiver: StartReceiver) -> None:
    receiver = start_receiver(MAX_ASSOCIATIONS="8", READ_TIMEOUT_S="2")
    process = psutil.Process(receiver.process.pid)
    associates(receiver)
    baseline = process.num_threads()
    flood = [connect(receiver) for _ in range(200)]
    assert associates(receiver)
    deadline = time.monotonic() + 30
    while process.num_threads() > baseline + 4 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.num_threads() <= baseline + 4
    for connection in flood:
        connection.close()


def test_a_request_of_empty_syntaxes_costs_little(receiver: RunningReceiver) -> None:
    """As many empty transfer syntaxes as fit below the limit of the PDU, in twenty contexts."""
    process = psutil.Process(receiver.process.pid)
    cpu, rss = sum(process.cpu_times()[:2]), process.memory_info().rss
    syntaxes = b"\x40\x00\x00\x00" * 3000
    abstract = struct.pack(">BBH", 0x30, 0, len(US_IMAGE)) + US_IMAGE.encode()
    contexts = b"".join(
        struct.pack(">BBHBBBB", 0x20, 0, 4 + len(abstract + syntaxes), number, 0, 0, 0) + abstract + syntaxes
        for number in range(1, 41, 2)
    )
    body = struct.pack(">HH", 1, 0) + b"SONOMARK        US01            " + bytes(32) + contexts
    connection = connect(receiver)
    connection.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
    connection.settimeout(20)
    with suppress(OSError):
        connection.recv(100)
    connection.close()
    assert sum(process.cpu_times()[:2]) - cpu < 4
    assert process.memory_info().rss - rss < 40 * MEGABYTE
    assert associates(receiver)
