"""Answers reach whoever waits for them, however the threads of an association are held up."""

import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from service.deliver.association import associate


@pytest.fixture
def port() -> Iterator[int]:
    """A node that answers C-ECHO."""
    ae = AE("PEER")
    ae.add_supported_context(Verification)
    server: Any = ae.start_server(("127.0.0.1", 0), block=False)
    yield server.socket.getsockname()[1]
    server.shutdown()


def test_an_answer_is_not_taken_by_the_associations_own_thread(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """That thread is held up just where it has been let past its checkpoint, and who asks just before it waits."""
    ae = AE("US01")
    ae.add_requested_context(Verification)
    ae.dimse_timeout = 5
    association = associate(ae, "127.0.0.1", port)
    assert association.is_established
    checkpoint, messages = association._reactor_checkpoint, association.dimse.msg_queue
    let_past, answered = Event(), Event()
    wait, send = Event.wait, association.dimse.send_msg

    def held_up(event: Event, timeout: float | None = None) -> bool:
        passed = wait(event, timeout)
        if event is checkpoint and not answered.is_set():
            let_past.set()
            wait(answered, 5)
        return passed

    def sent_and_held_up(*message: Any) -> None:
        send(*message)
        deadline = time.monotonic() + 5
        while messages.empty() and time.monotonic() < deadline:
            time.sleep(0.01)
        answered.set()
        time.sleep(0.2)

    monkeypatch.setattr(Event, "wait", held_up)
    monkeypatch.setattr(association.dimse, "send_msg", sent_and_held_up)
    assert wait(let_past, 5)
    assert association.send_c_echo().get("Status") == 0
    monkeypatch.undo()
    association.release()
