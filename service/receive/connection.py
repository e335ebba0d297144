"""The peer's bytes: reads that end, whatever the peer does, and cost one system call where they can."""

import socket
import ssl
import struct
import time

from pynetdicom.association import Association

from service import logs
from service.deliver.association import PolledSocket

log = logs.get(__name__)

# An A-ASSOCIATE-RQ with every context there is stays far below this; a longer PDU is refused before its body.
LONGEST_PDU = 256 * 1024
PDU_HEAD = 6
LOOK_UP_S = 0.25  # how long one wait for the peer lasts at most
FIRST_BUFFER = 132 * 1024  # a command and the longest PDU of the setting's default behind it


class GuardedSocket(PolledSocket):
    """A PDU has one deadline as a whole, however slowly its bytes drip, and a largest size.

    The kernel's own receive timeout ends a wait, and MSG_WAITALL gathers a PDU's body in one call; polling first and
    reading what is there would be three calls for every few kilobytes.
    """

    def __init__(self, assoc: Association, client_socket: socket.socket, longest_pdu: int, deadline_s: float) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self.longest_pdu = longest_pdu
        self._deadline_s = deadline_s
        self._buffer = memoryview(bytearray(FIRST_BUFFER))
        self._start = self._stop = 0  # of what was received and not taken yet
        self._gather = 0 if isinstance(client_socket, ssl.SSLSocket) else socket.MSG_WAITALL
        if self._gather:
            microseconds = round(LOOK_UP_S * 1e6)
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, microseconds))
            seconds, rest = divmod(round(deadline_s * 1e6), 10**6)
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", seconds, rest))
        else:
            client_socket.settimeout(LOOK_UP_S)

    @property
    def ready(self) -> bool:
        """Whether something can be taken."""
        return self._stop > self._start or super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """`take` for pynetdicom, which keeps what it gets."""
        return bytearray(self.take(nr_bytes))

    def send(self, bytestream: bytes) -> None:
        """Send all of it; the connection of a peer that reads nothing of it for too long is closed."""
        connection = self.socket
        if connection is None:
            return
        try:
            if not self._gather:  # TLS has one time for both directions
                connection.settimeout(self._deadline_s)
            connection.sendall(bytestream)
            if not self._gather:
                connection.settimeout(LOOK_UP_S)
        except OSError as error:
            log.warning("answer not sent, connection closed", reason=type(error).__name__)
            self.close()

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes, or fewer when the peer closed the connection; good until the next call.

        Raises:
            OSError: the PDU is longer than allowed, or took too long.
        """
        if count > self.longest_pdu:
            log.warning("pdu refused", octets=count, longest=self.longest_pdu)
            raise OSError("the PDU is longer than any this receiver offered to take")
        if self._stop - self._start < count:
            self._fill(count)
        start = self._start
        self._start = min(start + count, self._stop)
        return self._buffer[start : self._start]

    def arrives(self) -> bool:
        """Wait a moment for the peer: True when there is something to take, or the peer has closed the connection."""
        if self._stop > self._start:
            return True
        self._start = self._stop = 0
        return self._receive(len(self._buffer), 0) is not None

    def _fill(self, count: int) -> None:
        """Receive until ``count`` bytes are there, or the peer has closed the connection."""
        deadline = time.monotonic() + (self._deadline_s / 2 if count == PDU_HEAD else self._deadline_s)
        self._make_room(count)
        # Behind a head comes more of which the length is not known yet; a body is gathered whole.
        flags = 0 if count == PDU_HEAD else self._gather
        while (missing := count - (self._stop - self._start)) > 0:
            if self._receive(missing if flags or not self._gather else len(self._buffer) - self._stop, flags) == 0:
                return
            if self._stop - self._start < count and time.monotonic() > deadline:
                self._start = self._stop  # or it would seem to be ready for another try
                raise TimeoutError("the peer sends too slowly")

    def _receive(self, most: int, flags: int) -> int | None:
        """One wait: how many bytes came, 0 when the peer has closed the connection, None when it said nothing."""
        connection = self.socket
        if connection is None:
            raise OSError("the connection is closed")
        try:
            received = connection.recv_into(self._buffer[self._stop :], most, flags)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            return None
        self._stop += received
        return received

    def _make_room(self, count: int) -> None:
        """Room for ``count`` bytes from the start of what is there on."""
        if len(self._buffer) - self._start >= count:
            return
        buffer = self._buffer
        if len(buffer) < count:
            self._buffer = memoryview(bytearray(count + PDU_HEAD))
        kept = bytes(buffer[self._start : self._stop])
        self._buffer[: len(kept)] = kept
        self._start, self._stop = 0, len(kept)
