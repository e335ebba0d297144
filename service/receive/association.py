"""pynetdicom's association with our own doors in it: guarded reads, and C-STORE data straight into a file."""

import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from io import BytesIO
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, cast
from uuid import uuid4

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import N_EVENT_REPORT, DimseServiceType
from pynetdicom.dsutils import encode
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import (
    AddressInformation,
    RequestHandler,
    ThreadedAssociationServer,
)

from service import logs
from service.archive.store import archive
from service.receive.commitment import PUSH_MODEL_INSTANCE
from service.receive.connection import LONGEST_PDU, LOOK_UP_S, GuardedSocket
from service.receive.contexts import STORAGE_COMMITMENT
from service.receive.incoming import Berth, Incoming, StoreRequest
from service.receive.peers import Peer
from service.receive.seats import Seats
from service.receive.status import Answer
from service.receive.tls import Tls, names_of
from service.receive.upper_layer import ABORT, UpperLayer
from service.settings import settings

log = logs.get(__name__)

MOST_CONNECTIONS_OF_AN_ADDRESS = 256  # each is a thread or two until its deadline
MOST_OCTETS = 16 << 20  # of a message other than C-STORE, which is held in memory
TAKEN_AGAIN_S = 0.5  # after no descriptor was left for a connection
FIRST_PROBE_S, BETWEEN_PROBES_S, PROBES = 30, 10, 3
MAPPED = "::ffff:"  # so a socket of IPv6 tells of those who call by IPv4 (RFC 4291 section 2.5.5.2)


class StreamingDimse(DIMSEServiceProvider):
    """Puts the data set of a C-STORE request into an ``Incoming`` instead of memory."""

    def __init__(self, assoc: "Acceptor") -> None:
        super().__init__(assoc)
        self._acceptor = assoc
        self._incoming: Incoming | None = None
        self._message_id = 0
        self._octets = 0  # of the message that pynetdicom is putting together
        # Complete, in the order of their requests in `msg_queue`: by Message ID, for one may come without a data set.
        self._arrived: deque[tuple[int, Incoming]] = deque()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA in."""
        for context_id, fragment in primitive.presentation_data_value_list:
            is_command, is_last = fragment[0] & 1, fragment[0] & 2
            if is_command or self._incoming is None:
                self._pass_on(context_id, fragment)
                # The command is complete and a data set is announced: pynetdicom has made it a C_STORE_RQ.
                if isinstance(self.message, C_STORE_RQ):
                    command = self.message.command_set
                    self._message_id = int(command.get("MessageID", 0))
                    self._incoming = self._acceptor.incoming(
                        context_id,
                        str(command.get("AffectedSOPClassUID", "")),
                        str(command.get("AffectedSOPInstanceUID", "")),
                    )
                continue
            self._incoming.write(memoryview(fragment)[1:], last=bool(is_last))
            if is_last:
                self._arrived.append((self._message_id, self._incoming))
                self._incoming = None
                self._pass_on(context_id, fragment[:1])

    def arrived(self, message_id: int) -> Incoming | None:
        """The data set of the request that is next; None when it came without one."""
        if not self._arrived or self._arrived[0][0] != message_id:
            return None
        return self._arrived.popleft()[1]

    def is_quiet(self) -> bool:
        """Whether no message is being received or waits to be served."""
        return self.message is None and self._incoming is None and self.msg_queue.empty()

    def discard(self) -> None:
        """Forget what did not arrive completely or was never answered."""
        for incoming in [self._incoming, *(incoming for _, incoming in self._arrived)]:
            if incoming is not None:
                incoming.discard()
        self._incoming = None
        self._arrived.clear()

    def _pass_on(self, context_id: int, fragment: bytes) -> None:
        self._octets = len(fragment) + (self._octets if self.message is not None else 0)
        if self._octets > MOST_OCTETS:
            self._acceptor.log.warning("message too long, connection closed", octets=self._octets)
            if self._acceptor.dul.socket is not None:
                self._acceptor.dul.socket.close()
            return
        primitive = P_DATA()
        # A list in truth: pynetdicom refuses the tuple that its annotation asks for.
        primitive.presentation_data_value_list = [[context_id, fragment]]  # type: ignore[list-item]
        super().receive_primitive(primitive)


class Acceptor(Association):
    """The receiver's end of one association."""

    def __init__(self, ae: AE, take: "Take", note: "Note", under_way: "UnderWay", *, lean: bool) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.correlation_id = uuid4().hex
        self.log = log.bind(correlation_id=self.correlation_id)
        self.under_way = under_way
        self._take, self._note = take, note
        self._serving = False
        self.stored = self.refused = self.octets = 0  # what became of its instances
        self.encrypted = False
        self.names: frozenset[str] = frozenset()  # in the certificate that the peer has shown
        self.peer: Peer | None = None  # who calls, once it is let in
        self.only_studies: frozenset[str] = frozenset()  # what it may store, if not anything
        self.transactions: set[str] = set()  # of storage commitment, asked for here
        self._answers: SimpleQueue[N_EVENT_REPORT] = SimpleQueue()  # to reports
        self._reports = 0
        self._berth = Berth(archive())
        self.dimse: StreamingDimse = StreamingDimse(self)
        if lean:
            self.dul: DULServiceProvider = UpperLayer(self)
            # Setting these hands them to the timers of the upper layer, which is a new one.
            self.acse_timeout, self.network_timeout = ae.acse_timeout, ae.network_timeout

    def run_reactor(self) -> None:
        """Serve until released, aborted or cut off; nothing incomplete stays behind."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - whatever the peer wrote, its connection ends with its thread
            self.log.error("association failed, connection closed", error=type(error).__name__)
            if self.dul.socket is not None:
                self.dul.socket.send(ABORT)
                self.dul.socket.close()
            self.kill()
        finally:
            self.dimse.discard()
            if isinstance(self.dul, UpperLayer):
                self.dul.discard()
            self._berth.leave()
            if isinstance(self._server, Door) and self.requestor.address_info is not None:
                self._server.left(self.requestor.address_info.address)
                # Whoever hangs up at once is closed before being admitted, and nobody says so a second time.
                self._server.seats.leave(self.correlation_id)

    def asked_for(self, transaction_uid: str) -> bool:
        """Whether this association asked for that commitment and still stands."""
        return self.is_established and transaction_uid in self.transactions

    def report(self, event_type: int, information: Dataset, within_s: float) -> int | None:
        """Send a storage commitment report; the status that answers it, or None when none came in time.

        pynetdicom's own way would take the next message for the answer, whatever it is. Here a cart may go on storing:
        a report goes out between its instances, and they are answered while it is on its way.

        Raises:
            ValueError: there is no presentation context for it.
        """
        context = self._get_valid_context(STORAGE_COMMITMENT, "", None)
        syntax = context.transfer_syntax[0]
        self._reports += 1
        request = N_EVENT_REPORT()
        request.MessageID, request.EventTypeID = self._reports, event_type
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(STORAGE_COMMITMENT), UID(PUSH_MODEL_INSTANCE)
        request.EventInformation = BytesIO(encode(information, syntax.is_implicit_VR, syntax.is_little_endian) or b"")
        self.dimse.send_msg(request, cast(int, context.context_id))
        deadline = time.monotonic() + within_s
        while self.is_established and time.monotonic() < deadline:
            with suppress(Empty):
                answer = self._answers.get(timeout=LOOK_UP_S)
                if answer.MessageIDBeingRespondedTo == request.MessageID:
                    return answer.Status
        return None

    def is_quiet(self) -> bool:
        """Whether pynetdicom has no message in hand."""
        return self.dimse.is_quiet() and not self._serving

    def incoming(self, context_id: int, sop_class_uid: str, sop_instance_uid: str) -> Incoming:
        """Room for the data set that a C-STORE request announces."""
        accepted = self._accepted_cx.get(context_id)
        request = StoreRequest(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            context_sop_class_uid=str(accepted.abstract_syntax) if accepted else "",
            transfer_syntax_uid=str(accepted.transfer_syntax[0]) if accepted else "",
            calling_ae_title=self.requestor.ae_title.strip(),
            correlation_id=self.correlation_id,
            character_set=self.peer.character_set if self.peer else "",
            priority=self.peer.priority if self.peer else 0,
            only_studies=self.only_studies,
        )
        return Incoming(self._berth, request)

    def take(self, incoming: Incoming) -> Answer:
        """Take a complete data set in; what its sender is to be told."""
        return self._take(self, incoming)

    def note(self, incoming: Incoming, told: Answer) -> None:
        """The sender has been told."""
        self._note(self, incoming, told)

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        if isinstance(msg, N_EVENT_REPORT) and msg.MessageIDBeingRespondedTo is not None:
            self._answers.put(msg)
            return
        self._serving = True
        try:
            super()._serve_request(msg, context_id)
        finally:
            self._serving = False


Take = Callable[[Acceptor, Incoming], Answer]
Note = Callable[[Acceptor, Incoming, Answer], None]
UnderWay = Callable[[], AbstractContextManager[None]]


class DoorHandler(RequestHandler):
    """Makes the association of one incoming connection."""

    server: "Door"

    def handle(self) -> None:
        """Shake hands where the port speaks TLS, and start the association. In the connection's own thread."""
        try:
            if self.server.tls is not None:
                self.request = self.server.tls.wrap(self.request)
        except OSError as error:
            log.warning("no TLS, connection closed", address=self.client_address[0], reason=type(error).__name__)
            self.server.left(self.client_address[0])
            return
        super().handle()

    def _create_association(self) -> Acceptor:
        association = Acceptor(
            self.ae, self.server.take, self.server.note, self.server.under_way, lean=self.server.lean
        )
        association._server = self.server
        association.encrypted = self.server.tls is not None
        association.names = names_of(self.request)
        association.name = f"AcceptorThread@{association.correlation_id}"
        longest = max(LONGEST_PDU, self.ae.maximum_pdu_size)
        association.set_socket(GuardedSocket(association, self.request, longest, settings().read_timeout_s))
        association.acceptor.maximum_length = self.ae.maximum_pdu_size
        association.acceptor.ae_title = self.server.ae_title
        association.acceptor.address_info = self.local
        association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        association.acceptor.implementation_version_name = self.ae.implementation_version_name
        # Negotiation only reads them, so all associations share one list.
        association.acceptor.supported_contexts = self.server.contexts
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        for event, handlers in self.server._handlers.items():
            # One handler of an event that asks for an answer, a list of handlers of one that only tells.
            for handler, arguments in [handlers] if isinstance(handlers, tuple) else handlers:
                association.bind(event, handler, arguments)
        return association


class Door(ThreadedAssociationServer):
    """The listening socket. Several processes may listen on one port; the kernel spreads the connections."""

    request_queue_size = 128
    daemon_threads = True
    # Set by the receiver before the first connection is taken.
    take: Take
    note: Note
    under_way: UnderWay
    lean: bool
    tls: Tls | None = None
    seats: Seats

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._connections: Counter[str] = Counter()
        self._counting = Lock()
        super().__init__(*arguments, **named)

    def server_bind(self) -> None:
        if settings().receivers > 1 and self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the address has not too many connections already, silent ones counted."""
        with self._counting:
            if self._connections[client_address[0]] >= MOST_CONNECTIONS_OF_AN_ADDRESS:
                log.warning("too many connections", address=client_address[0])
                return False
            self._connections[client_address[0]] += 1
            return True

    def service_actions(self) -> None:
        """Nothing: pynetdicom collects garbage here, which holds every association up for longer than it takes to store
        an instance. Python collects by itself."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection became no association, for want of a thread perhaps: it is closed, and counts no more."""
        error = type(sys.exc_info()[1]).__name__
        log.error("connection not served, closed", address=client_address[0], error=error)
        self.left(client_address[0])

    def left(self, address: str) -> None:
        """A connection from there has ended."""
        with self._counting:
            self._connections[address] -= 1
            if self._connections[address] <= 0:
                del self._connections[address]

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            connection, address = super().get_request()
        except OSError as error:
            # It stays in the kernel's queue: asking for it again at once would take a whole core from the others.
            log.warning("no connection can be taken", reason=error.strerror, again_in_s=TAKEN_AGAIN_S)
            time.sleep(TAKEN_AGAIN_S)
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A cart that is switched off mid-study sends no FIN; without probes its association would stay for ever.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, FIRST_PROBE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, BETWEEN_PROBES_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        return connection, (address[0].removeprefix(MAPPED) if "." in address[0] else address[0], *address[1:])
