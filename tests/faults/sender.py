"""A sender of its own, over a plain socket: exact bytes, any fragmentation, and it may stop wherever a test wants.

It shares no line with the receiver or with pynetdicom, so what one of them gets wrong the other does not get wrong too.
PDUs: DICOM PS3.8 section 9.3; commands: PS3.7 section 9.3.1.
"""

import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from threading import Event, Thread

from tests.faults.images import Image, numbered
from tests.faults.ledger import Ledger

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
A_ASSOCIATE_AC, P_DATA, A_RELEASE_RQ, A_ABORT = 0x02, 0x04, 0x05, 0x07
FRAGMENT = 65_000


class Refused(ConnectionError):
    """The association was rejected or aborted."""


class Association:
    """The requestor's end of one association."""

    def __init__(
        self,
        port: int,
        contexts: Iterable[tuple[str, str]],
        calling: str = "US01",
        called: str = "SONOMARK",
        timeout: float = 40,
        host: str = "127.0.0.1",
    ) -> None:
        self._offers = {2 * number + 1: offer for number, offer in enumerate(dict.fromkeys(contexts))}
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._message_id = 0
        try:
            self.socket.sendall(associate_request(self._offers, calling, called))
            kind, body = self._read()
            if kind != A_ASSOCIATE_AC:
                raise Refused(f"the receiver answered with PDU type {kind:#04x}: {body.hex()}")
            self.accepted = _accepted(body)
        except BaseException:
            self.socket.close()
            raise

    def store(self, image: Image) -> int:
        """C-STORE; the status that came back.

        Raises:
            OSError: no status came, so nobody knows.
        """
        self.socket.sendall(b"".join(self.pdus(image)))
        return self.status()

    def pdus(self, image: Image) -> Iterator[bytes]:
        """The P-DATA-TF PDUs of one C-STORE request."""
        self._message_id += 1
        return store_pdus(self._context(image), self._message_id, image)

    def status(self) -> int:
        """Wait for a C-STORE response."""
        kind, body = self._read()
        if kind != P_DATA:
            raise Refused(f"instead of a response came PDU type {kind:#04x}")
        return int(_us(body[6:], 0x0900))

    def release(self) -> None:
        self.socket.sendall(struct.pack(">BBII", A_RELEASE_RQ, 0, 4, 0))
        self._read()
        self.socket.close()

    def abort(self) -> None:
        self.socket.sendall(struct.pack(">BBII", A_ABORT, 0, 4, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def _context(self, image: Image) -> int:
        for number, offer in self._offers.items():
            if offer == (image.sop_class, image.syntax) and number in self.accepted:
                return number
        raise Refused(f"no presentation context for {image.sop_class} in {image.syntax}")

    def _read(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        return head[0], self._exactly(int.from_bytes(head[2:], "big"))

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            piece = self.socket.recv(count - len(received))
            if not piece:
                raise ConnectionResetError("the receiver closed the connection")
            received += piece
        return received


def send(port: int, ledger: Ledger, images: Iterable[Image], **options: object) -> list[int | None]:
    """Store images by one association and write down what became of each; None where no answer came."""
    waiting = list(images)
    answers: list[int | None] = []
    try:
        association = Association(port, [(one.sop_class, one.syntax) for one in waiting], **options)  # type: ignore[arg-type]
    except OSError:
        return [None] * len(waiting)
    for one in waiting:
        answers.append(record(association, ledger, one))
        if answers[-1] is None:
            break
    else:
        with suppress(OSError):
            association.release()
    association.close()
    return answers + [None] * (len(waiting) - len(answers))


def record(association: Association, ledger: Ledger, one: Image) -> int | None:
    """Store one image and write down what became of it; None when no answer came."""
    ledger.invoke(one.version)
    try:
        status = association.store(one)
    except OSError as error:
        ledger.info(one.version, type(error).__name__)
        return None
    if status == SUCCESS:
        ledger.ok(one.version)
    else:
        ledger.fail(one.version, status)
    return status


class Load:
    """Senders that store numbered images until told to stop; each tries an image again until it is acknowledged."""

    def __init__(self, port: int, ledger: Ledger, seed: int, associations: int = 2, pause_s: float = 0.0) -> None:
        self._port, self._ledger = port, ledger
        self._pause_s = pause_s
        self._stop = Event()
        self.unsent: list[Image] = []
        self._threads = [Thread(target=self._run, args=(seed * 100 + n,)) for n in range(associations)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a sender hangs"

    def _run(self, seed: int) -> None:
        images = numbered(seed)
        while not self._stop.is_set():
            batch = [next(images) for _ in range(8)]
            while batch and not self._stop.is_set():
                answers = send(self._port, self._ledger, batch, timeout=30)
                batch = [one for one, status in zip(batch, answers, strict=True) if status != SUCCESS]
                time.sleep(0.1 if batch else self._pause_s)
            self.unsent += batch


def associate_request(offers: dict[int, tuple[str, str]], calling: str, called: str) -> bytes:
    """An A-ASSOCIATE-RQ PDU that offers these presentation contexts."""
    contexts = b"".join(
        _item(0x20, struct.pack(">BBBB", number, 0, 0, 0) + _text(0x30, abstract) + _text(0x40, syntax))
        for number, (abstract, syntax) in offers.items()
    )
    user = _item(0x50, _item(0x51, struct.pack(">I", 0)) + _text(0x52, "2.25.1"))
    titles = f"{called:<16}{calling:<16}".encode("ascii")
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + _text(0x10, APPLICATION_CONTEXT) + contexts + user
    return struct.pack(">BBI", 0x01, 0, len(body)) + body


def store_pdus(context: int, message_id: int, image: Image) -> Iterator[bytes]:
    """One C-STORE request: the command in one PDU, the data set in as many as it takes."""
    yield p_data(context, store_request(message_id, image.sop_class, image.uid), is_command=True)
    for start in range(0, max(1, len(image.data)), FRAGMENT):  # an empty data set has its fragment, too
        fragment = image.data[start : start + FRAGMENT]
        yield p_data(context, fragment, is_last=start + FRAGMENT >= len(image.data))


def p_data(context: int, fragment: bytes, *, is_command: bool = False, is_last: bool = True) -> bytes:
    """A P-DATA-TF PDU of one fragment."""
    value = struct.pack(">IBB", len(fragment) + 2, context, is_command | is_last << 1) + fragment
    return struct.pack(">BBI", P_DATA, 0, len(value)) + value


def store_request(message_id: int, sop_class: str, uid: str, data_set: int = 1) -> bytes:
    """The command set of a C-STORE-RQ."""
    elements = (
        element(0x0002, _padded(sop_class))
        + element(0x0100, struct.pack("<H", 0x0001))
        + element(0x0110, struct.pack("<H", message_id))
        + element(0x0700, struct.pack("<H", 2))
        + element(0x0800, struct.pack("<H", data_set))
        + element(0x1000, _padded(uid))
    )
    return element(0x0000, struct.pack("<I", len(elements))) + elements


def element(number: int, value: bytes) -> bytes:
    """An element of a command set."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def _accepted(body: bytes) -> set[int]:
    accepted, position = set(), 68
    while position + 4 <= len(body):
        kind, length = body[position], int.from_bytes(body[position + 2 : position + 4], "big")
        if kind == 0x21 and body[position + 6] == 0:
            accepted.add(body[position + 4])
        position += 4 + length
    return accepted


def _us(command: bytes, wanted: int) -> int:
    position = 0
    while position + 8 <= len(command):
        _, number, length = struct.unpack_from("<HHI", command, position)
        if number == wanted:
            return int.from_bytes(command[position + 8 : position + 8 + length], "little")
        position += 8 + length
    raise Refused("the response has no status")


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _text(kind: int, text: str) -> bytes:
    return _item(kind, text.encode("ascii"))


def _padded(text: str) -> bytes:
    raw = text.encode("latin-1")
    return raw + b"\x00" * (len(raw) % 2)
