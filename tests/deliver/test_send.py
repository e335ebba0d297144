"""C-STORE SCU against DCMTK's storescp."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread, examples
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from service.deliver.send import Node, dicom_files, echo, send
from service.errors import ConfigurationError, PeerError


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[Node, Path]]:
    """DCMTK's receiver, accepting every syntax, and the folder it fills."""
    if shutil.which("storescp") is None:
        pytest.skip("needs DCMTK: apt-get install dcmtk")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "received"
    folder.mkdir()
    process = subprocess.Popen(
        ["storescp", "-aet", "PEER", "-od", str(folder), "+xa", "+B", str(port)],
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield Node("PEER", "127.0.0.1", port), folder
    process.terminate()
    process.wait(timeout=10)


def test_files_arrive_with_their_own_bytes(storescp: tuple[Node, Path]) -> None:
    node, folder = storescp
    paths = [Path(examples.get_path(name)) for name in ("rgb_color", "ybr_color", "jpeg2k")]
    seen = []
    results = send(paths, node, on_sent=seen.append)
    assert [result.status for result in results] == [0, 0, 0]
    assert seen == results
    received = {dcmread(path).SOPInstanceUID: dcmread(path) for path in folder.iterdir()}
    for path in paths:
        sent = dcmread(path)
        assert received[sent.SOPInstanceUID].PixelData == sent.PixelData


def test_what_is_no_dicom_is_reported_and_the_rest_goes_on(storescp: tuple[Node, Path], tmp_path: Path) -> None:
    node, folder = storescp
    noise = tmp_path / "noise.dcm"
    noise.write_bytes(b"not DICOM at all")
    results = send([noise, Path(examples.get_path("rgb_color"))], node)
    assert [result.stored for result in results] == [False, True]
    assert "no DICOM file" in results[0].reason and "Error" not in results[0].reason
    assert len(list(folder.iterdir())) == 1


def test_a_peer_that_is_away_is_named() -> None:
    nowhere = Node("NOBODY", "127.0.0.1", 1)
    with pytest.raises(PeerError, match=r"NOBODY@127\.0\.0\.1:1"):
        send([Path(examples.get_path("rgb_color"))], nowhere)
    with pytest.raises(PeerError):
        echo(nowhere)


@pytest.mark.parametrize("host", ["pacs.invalid", "pacs..invalid"])
def test_a_name_that_nobody_knows_is_named(host: str) -> None:
    with pytest.raises(PeerError, match=f"The name {host} is not known"):
        send([Path(examples.get_path("rgb_color"))], Node("PACS", host, 104))


def test_a_peer_that_takes_nothing_at_the_moment_is_not_taken_for_a_wrong_title() -> None:
    def drain(event: evt.Event) -> None:
        event.assoc.acse.send_reject(0x02, 0x03, 0x02)  # transient, local limit exceeded
        event.assoc.is_rejected = True
        event.assoc.kill()

    peer = AE("PEER")
    peer.add_supported_context(Verification)
    server = peer.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_REQUESTED, drain)])
    try:
        with pytest.raises(PeerError, match="at the moment") as told:
            echo(Node("PEER", "127.0.0.1", server.server_address[1]))
    finally:
        server.shutdown()
    assert "try again later" in told.value.cure


def test_echo_succeeds(storescp: tuple[Node, Path]) -> None:
    echo(storescp[0])


@pytest.mark.parametrize("text", ["", "PACS", "PACS@host", "PACS@host:port", "PACS@host:99999", "A" * 17 + "@h:1"])
def test_a_node_that_is_none_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ConfigurationError, match="AET@HOST:PORT"):
        Node.parse(text)


def test_a_node_is_read_and_written() -> None:
    assert Node.parse("PACS@archive.example:104") == Node("PACS", "archive.example", 104)
    assert str(Node("PACS", "h", 1)) == "PACS@h:1"


def test_folders_are_walked_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b/2", "a/1", "c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in dicom_files([tmp_path])] == ["1", "2", "c"]
