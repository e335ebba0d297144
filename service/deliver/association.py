"""Our end of an association with another node: every answer reaches whoever waits for it."""

from collections.abc import Sequence
from threading import Event
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association


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
    ae: ApplicationEntity, address: str, port: int, *, evt_handlers: Sequence[Any] = (), **options: Any
) -> Association:
    """``AE.associate`` with a checkpoint that holds; handlers and options are those of pynetdicom."""
    handlers = [*evt_handlers, (evt.EVT_ESTABLISHED, _hold)]
    return ae.associate(address, port, evt_handlers=handlers, **options)


def _hold(event: Any) -> None:
    """In the thread that associates; the association's own has not begun."""
    event.assoc._reactor_checkpoint = Checkpoint(event.assoc)
