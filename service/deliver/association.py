"""Our end of an association with another node: every answer reaches whoever waits for it."""

import select
import socket
import ssl
from collections.abc import Sequence
from threading import Event
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from service.errors import PeerError


class PolledSocket(AssociationSocket):
    """pynetdicom asks `select` whether there is something to read, which knows 1024 descriptors: it would take a
    connection that comes after them, in a flood say, for gone."""

    @property
    def ready(self) -> bool:
        """Whether something can be read."""
        connection = self.socket
        if connection is None or not self._is_connected:
            return False
        try:
            return await_one(connection, select.POLLIN, 0) or (
                isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
            )
        except (OSError, ValueError):  # closed meanwhile
            self.event_queue.put("Evt17")
            return False


def await_one(connection: socket.socket, event: int, seconds: float) -> bool:
    """Wait so long at most until the connection can be read (POLLIN) or written (POLLOUT), or has ended."""
    poll = select.poll()
    poll.register(connection, event)
    return bool(poll.poll(max(0.0, seconds) * 1000))


class CallingEntity(ApplicationEntity):
    """An application entity whose calls may have any descriptor."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> PolledSocket:
        made = PolledSocket(assoc, address=address)
        made.tls_args = tls_args
        return made


class Checkpoint(Event):
    """Where pynetdicom's own thread of an association rests while somebody waits for an answer there.

    pynetdicom's says that the thread rests, asks whether it may go on, and takes back that it rests, one after the
    other. Who clears the checkpoint in between believes it to be at rest; on a busy machine it may then take the
    answer off the queue as a message that nobody expects, and who waits for it does so until its time is up.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the thread may go on, and still may once it no longer says that it rests."""
        while super().wait(timeout):
            self._association._is_paused = False
            if self.is_set():
                return True
            self._association._is_paused = True
        return False


def associate(
    ae: CallingEntity, address: str, port: int, *, evt_handlers: Sequence[Any] = (), **options: Any
) -> Association:
    """``AE.associate`` with a checkpoint that holds; handlers and options are those of pynetdicom.

    Raises PeerError when the address is a name that nobody knows.
    """
    handlers = [*evt_handlers, (evt.EVT_ESTABLISHED, _hold)]
    try:
        return ae.associate(address, port, evt_handlers=handlers, **options)
    except (socket.gaierror, UnicodeError) as error:  # the latter of a name that cannot be one
        raise PeerError(f"The name {address} is not known.", cure="Check the address and the name server.") from error


def _hold(event: Any) -> None:
    """In the thread that associates; the association's own has not begun."""
    event.assoc._reactor_checkpoint = Checkpoint(event.assoc)
