"""Answers reach whoever waits for them, however the threads of an association are held up."""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from service.deliver.association import CallingEntity, associate
from tests.receive.conftest import US_IMAGE, ultrasound


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
    ae = CallingEntity("US01")
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


BEYOND_THE_THOUSANDTH = """
import os, resource, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]

from pathlib import Path
from service.deliver.send import Node, echo, send
node = Node("PEER", "127.0.0.1", int(sys.argv[1]))
echo(node)
[sent] = send([Path(sys.argv[2])], node)
print(sent.status)
"""


def test_calls_beyond_the_thousandth_descriptor_get_their_answers(tmp_path: Path) -> None:
    """A receiver that is full reports its commitments all the same; `select` knows 1024 descriptors."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this machine allows fewer descriptors")
    ae = AE("PEER")
    for sop_class in (Verification, US_IMAGE):
        ae.add_supported_context(sop_class, ExplicitVRLittleEndian)
    kept: list[str] = []

    def keep(event: Any) -> int:
        kept.append(event.request.AffectedSOPInstanceUID)
        return 0

    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    image = ultrasound(PixelData=bytes(1 << 20), Rows=1024, Columns=1024)
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    port = str(server.socket.getsockname()[1])
    command = [sys.executable, "-c", BEYOND_THE_THOUSANDTH, port, str(tmp_path / "image.dcm")]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        server.shutdown()
    assert (ended.returncode, ended.stdout) == (0, "0\n"), ended.stderr[-600:]
    assert kept == [image.SOPInstanceUID]
