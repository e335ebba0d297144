"""The lean path of C-STORE: P-DATA straight from the socket into the file, answered where it arrives.

pynetdicom negotiates the association and serves everything that is no C-STORE. Its own way for a data set, one poll,
one queue and one state machine step for each PDU, costs more than the disk; `association.StreamingDimse` still goes
that way and is the oracle of this one. PDUs and their fields: DICOM PS3.8 section 9.3; commands: PS3.7 section 9.3.1.
"""

import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING

from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_ABORT, A_P_ABORT

from service.receive.connection import PDU_HEAD, GuardedSocket
from service.receive.incoming import Incoming
from service.receive.states import States
from service.receive.status import Status

if TYPE_CHECKING:
    from service.receive.association import Acceptor

P_DATA_TF, A_ASSOCIATE_RQ = 0x04, 0x01
C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
NO_DATA_SET = 0x0101
PDV_HEAD = 6  # length, presentation context, message control header
AWAITING_REQUEST, ESTABLISHED = "Sta2", "Sta6"  # states of PS3.8 section 9.2

COMMAND_FIELD, MESSAGE_ID, DATA_SET_TYPE = 0x0100, 0x0110, 0x0800
AFFECTED_SOP_CLASS, AFFECTED_SOP_INSTANCE = 0x0002, 0x1000
MESSAGE_ID_ANSWERED, STATUS, ERROR_COMMENT = 0x0120, 0x0900, 0x0902
LONGEST_COMMENT = 64  # characters of an LO

ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"  # A-ABORT, source: service user

_Pdv = tuple[int, int, memoryview]  # presentation context, message control header, fragment


class UpperLayer(DULServiceProvider):
    """pynetdicom's upper layer, save that C-STORE requests never leave this thread."""

    def __init__(self, assoc: "Acceptor") -> None:
        super().__init__(assoc)
        self.state_machine = States(self)
        self._acceptor = assoc
        self._incoming: Incoming | None = None
        self._context_id = 0
        self._message_id = 0

    def discard(self) -> None:
        """Forget an instance that did not arrive completely."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.discard()

    def _read_pdu_data(self) -> None:
        if self.state_machine.current_state == AWAITING_REQUEST and not self._begins_with_a_request():
            self._acceptor.log.warning("not DICOM, connection closed")
            self.cut()
            return
        if not self._lean():
            super()._read_pdu_data()
            return
        # pynetdicom's association thread polls every millisecond; while the lean path is at work it rests.
        self._acceptor._reactor_checkpoint.clear()
        try:
            self._serve()
        except OSError:
            self.cut()
        except Exception as error:  # noqa: BLE001 - pynetdicom would abort without a word, and leave the connection open
            self._acceptor.log.error("association failed, connection closed", error=type(error).__name__)
            if self.socket is not None:
                self.socket.send(ABORT)
            self.cut()
        finally:
            # pynetdicom does so once this returns; its other thread, awake again, would have looked by then.
            self._idle_timer.restart()
            self._acceptor._reactor_checkpoint.set()

    def _begins_with_a_request(self) -> bool:
        connection = self.socket.socket  # type: ignore[union-attr]
        if connection is None or isinstance(connection, ssl.SSLSocket):  # TLS cannot look without taking
            return True
        return connection.recv(1, socket.MSG_PEEK) in (b"", bytes([A_ASSOCIATE_RQ]))

    def _lean(self) -> bool:
        """Whether the next PDU begins a message and pynetdicom has nothing of its own to do."""
        return (
            self.state_machine.current_state == ESTABLISHED
            and self._acceptor.is_established
            and self._acceptor.is_quiet()
            and not self._kill_thread
            and self.to_provider_queue.empty()
        )

    def _serve(self) -> None:
        """Serve C-STORE requests until something else comes, or pynetdicom wants the connection."""
        connection = self._connection
        while True:
            head = bytes(connection.take(PDU_HEAD))
            length = int.from_bytes(head[2:], "big")
            body = connection.take(length)
            if len(head) < PDU_HEAD or len(body) < length:
                self.cut()
                return
            left = self._take(body) if head[0] == P_DATA_TF else body
            if left is not None:
                self.discard()
                self._hand_over(head[:2] + len(left).to_bytes(4, "big"), bytes(left))
                return
            if not self._more_comes():
                return

    @property
    def _connection(self) -> GuardedSocket:
        if not isinstance(self.socket, GuardedSocket):
            raise OSError("the connection is closed")
        return self.socket

    def _take(self, body: memoryview) -> memoryview | None:
        """Take the fragments of one P-DATA-TF in. From the first on that is not for the lean path they come back: a
        sender that does not wait for its answers may begin the next message in the PDU that ends this one."""
        fragments, left = _fragments(body), body
        if fragments is None:
            return body
        if self._incoming is None:
            # A sender puts the whole command into one fragment; another one's is left to pynetdicom.
            context_id, control, command = fragments[0]
            request = _command(command) if control & 3 == 3 else None
            if request is None or not self._is_store(context_id, request):
                return body
            del fragments[0]
            left = left[PDV_HEAD + len(command) :]
            self._context_id = context_id
            self._message_id = int.from_bytes(request[MESSAGE_ID], "little")
            self._incoming = self._acceptor.incoming(
                context_id, _uid(request[AFFECTED_SOP_CLASS]), _uid(request[AFFECTED_SOP_INSTANCE])
            )
        for context_id, control, fragment in fragments:
            if control & 1 or context_id != self._context_id or self._incoming is None:
                return left
            left = left[PDV_HEAD + len(fragment) :]
            self._incoming.write(fragment, last=bool(control & 2))
            if control & 2:
                self._answer(self._incoming)
                self._incoming = None
        return None

    def _is_store(self, context_id: int, command: dict[int, bytes]) -> bool:
        return (
            context_id in self._acceptor._accepted_cx
            and int.from_bytes(command.get(COMMAND_FIELD, b""), "little") == C_STORE_RQ
            and int.from_bytes(command.get(DATA_SET_TYPE, b""), "little") != NO_DATA_SET
            and {MESSAGE_ID, AFFECTED_SOP_CLASS, AFFECTED_SOP_INSTANCE} <= command.keys()
        )

    def _answer(self, incoming: Incoming) -> None:
        with self._acceptor.under_way():
            told = self._acceptor.take(incoming)
            request = incoming.request
            try:
                self._connection.send(
                    store_response(
                        self._context_id,
                        self._message_id,
                        request.sop_class_uid,
                        request.sop_instance_uid,
                        told.status,
                        told.comment,
                    )
                )
            finally:
                self._acceptor.note(incoming, told)

    def _more_comes(self) -> bool:
        """Wait for the next PDU; False when pynetdicom wants the connection or the peer has been idle too long."""
        connection = self._connection
        idle_since = time.monotonic()
        while True:
            if self._incoming is None and not self._lean():
                return False
            if self._kill_thread or self._aborts():
                self.discard()
                return False
            if connection.arrives():
                return True
            if time.monotonic() - idle_since > (self.network_timeout or float("inf")):
                self._acceptor.log.warning("idle association dropped")
                connection.send(ABORT)
                self.cut()
                return False

    def _aborts(self) -> bool:
        """Whether pynetdicom wants to abort; whatever else it has to send may wait for the end of a data set."""
        waiting = self.to_provider_queue
        with waiting.mutex:
            return any(isinstance(primitive, (A_ABORT, A_P_ABORT)) for primitive in waiting.queue)

    def _hand_over(self, head: bytes | bytearray, body: bytes | bytearray) -> None:
        """Let pynetdicom have a PDU that is not for the lean path, as if it had read it itself."""
        try:
            pdu, event = self._decode_pdu(bytearray(head) + body)
        except Exception:  # noqa: BLE001 - whatever the peer sent, it ends this association alone
            self.event_queue.put("Evt19")  # invalid PDU
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def cut(self) -> None:
        """The connection is gone, or must go."""
        self.discard()
        if self.socket is not None:
            self.socket.close()  # tells the state machine: transport connection closed


def _fragments(body: memoryview) -> list[_Pdv] | None:
    """The presentation data values of a P-DATA-TF (PS3.8 section 9.3.5.1); None when they do not fill it exactly."""
    fragments, position = [], 0
    while position + 6 <= len(body):
        length, context_id, control = struct.unpack_from(">IBB", body, position)
        following = position + 4 + length
        if length < 2 or following > len(body):
            return None
        fragments.append((context_id, control, body[position + 6 : following]))
        position = following
    return fragments if fragments and position == len(body) else None


def _command(fragment: memoryview) -> dict[int, bytes] | None:
    """Elements of a command set, always Implicit VR Little Endian in group 0000 (PS3.7 section 6.3.1)."""
    elements, position = {}, 0
    while position + 8 <= len(fragment):
        group, element, length = struct.unpack_from("<HHI", fragment, position)
        position += 8
        if group or position + length > len(fragment):
            return None
        elements[element] = bytes(fragment[position : position + length])
        position += length
    return elements if position == len(fragment) else None


def _uid(raw: bytes) -> str:
    return raw.rstrip(b"\x00 ").decode("ascii", "replace")


def store_response(
    context_id: int, message_id: int, sop_class_uid: str, sop_instance_uid: str, status: Status, comment: str = ""
) -> bytes:
    """A C-STORE-RSP as one P-DATA-TF."""
    elements = [
        _element(AFFECTED_SOP_CLASS, _even(sop_class_uid, b"\x00")),
        _element(COMMAND_FIELD, struct.pack("<H", C_STORE_RSP)),
        _element(MESSAGE_ID_ANSWERED, struct.pack("<H", message_id)),
        _element(DATA_SET_TYPE, struct.pack("<H", NO_DATA_SET)),
        _element(STATUS, struct.pack("<H", status)),
    ]
    if comment:
        elements.append(_element(ERROR_COMMENT, _even(comment[:LONGEST_COMMENT], b" ")))
    elements.append(_element(AFFECTED_SOP_INSTANCE, _even(sop_instance_uid, b"\x00")))
    command = b"".join(elements)
    command = _element(0x0000, struct.pack("<I", len(command))) + command
    value = struct.pack(">IBB", len(command) + 2, context_id, 3) + command
    return struct.pack(">BBI", P_DATA_TF, 0, len(value)) + value


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _even(text: str, padding: bytes) -> bytes:
    raw = text.encode("ascii", "replace")
    return raw + padding if len(raw) % 2 else raw
