"""pynetdicom's state machine for peers who do what no state foresees."""

import queue
from contextlib import suppress
from typing import TYPE_CHECKING

from pynetdicom.fsm import TRANSITION_TABLE, StateMachine

from service import logs

if TYPE_CHECKING:
    from service.receive.upper_layer import UpperLayer

log = logs.get(__name__)

CLOSED, CLOSING = "Sta1", "Sta13"  # PS3.8 section 9.2
# A-ABORT, PS3.8 section 9.3.8: by the service provider, for an invalid PDU parameter value.
NOT_UNDERSTOOD = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"
# Of this side's user. pynetdicom leaves the primitive in its queue until an action takes it, and asks again and again.
PRIMITIVES = {"Evt1", "Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"}


class States(StateMachine):
    """An event that has no place in the present state ends this connection, not its thread.

    The table of PS3.8 section 9.2 has gaps where both sides act at once: our acceptance, for instance, may come when
    the peer's next PDU has already made us abort.
    """

    dul: "UpperLayer"

    def do_action(self, event: str) -> None:
        """Carry out what the table says, if it says anything."""
        before = self.current_state
        if (event, before) in TRANSITION_TABLE:
            try:
                super().do_action(event)
            except Exception as error:  # noqa: BLE001 - whatever the peer wrote, it ends this connection, and at once
                self._give_up(before, error)
            if before != CLOSED and self.current_state == CLOSED:
                # Who hangs up before a request is out at once: pynetdicom's other thread would wait for one to its
                # deadline, and the connection count among its address's until then.
                self.dul.to_user_queue.put(None)  # type: ignore[arg-type]  # what its `get` says in vain
            return
        log.debug("event without a place", event_number=event, state=self.current_state)
        if event in PRIMITIVES:
            with suppress(queue.Empty):
                self.dul.to_provider_queue.get(block=False)
        # While the connection closes, the timer ARTIM sees to its end.
        if self.current_state not in (CLOSED, CLOSING):
            self.dul.cut()

    def _give_up(self, state: str, error: Exception) -> None:
        """An even presentation context id, for instance, is found out only here, where pynetdicom's thread would end
        and leave the connection to its other one's deadline."""
        log.warning("not understood, connection closed", state=state, error=type(error).__name__)
        if self.dul.socket is not None:
            self.dul.socket.send(NOT_UNDERSTOOD)
        self.dul.cut()
        self.current_state = CLOSED
