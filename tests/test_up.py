"""The supervisor, with small programs in place of the roles' rooms."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from service import up
from service.errors import ConfigurationError, SonomarkError
from service.settings import Settings


def _spawning(command: list[str]) -> object:
    def spawn(self: up.Supervisor, role: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, start_new_session=True)

    return spawn


def test_a_fallen_role_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up.Supervisor, "_spawn", _spawning(["sleep", "60"]))
    monkeypatch.setattr(up, "RESTART_PAUSE_S", 0)
    supervisor = up.Supervisor({})
    supervisor.start()
    try:
        before = [child.process.pid for child in supervisor._children]
        os.kill(before[1], signal.SIGKILL)
        supervisor._children[1].process.wait()
        supervisor.watch()
        after = [child.process.pid for child in supervisor._children]
        assert after[0] == before[0]
        assert after[1] != before[1]
    finally:
        supervisor.stop()
    assert all(child.process.returncode is not None for child in supervisor._children)


def test_a_role_that_keeps_falling_needs_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up.Supervisor, "_spawn", _spawning(["false"]))
    monkeypatch.setattr(up, "RESTART_PAUSE_S", 0.05)
    supervisor = up.Supervisor({})
    supervisor.start()

    def watch_for_ever() -> None:
        while True:
            time.sleep(0.05)
            supervisor.watch()

    with pytest.raises(SonomarkError, match="doctor"):
        watch_for_ever()
    supervisor.stop()


def test_a_role_that_will_not_leave_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = [sys.executable, "-c", "import signal,time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(60)"]
    monkeypatch.setattr(up.Supervisor, "_spawn", _spawning(deaf))
    monkeypatch.setattr(up, "STOP_GRACE_S", 0.2)
    supervisor = up.Supervisor({})
    supervisor.start()
    time.sleep(1)
    supervisor.stop()
    assert {child.process.returncode for child in supervisor._children} == {-signal.SIGKILL}


def test_a_dashboard_with_a_certificate_for_its_public_name_is_ready(tmp_path: Path) -> None:
    pair = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=sonomark.test"]
    subprocess.run([*request, "-out", pair[0], "-keyout", pair[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)

    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        here = Settings(http_port=server.server_port, http_certificate=str(pair[0]), http_private_key=str(pair[1]))
        assert up.ready(here)
        server.shutdown()
    assert not up.ready(here)


def test_people_are_led_to_the_public_address() -> None:
    here = Settings(http_host="0.0.0.0", http_port=8000)
    assert up.public_address(here) == "http://127.0.0.1:8000"
    by_tls = here.model_copy(update={"http_certificate": "/etc/ssl/sonomark.pem"})
    assert up.public_address(by_tls) == "https://127.0.0.1:8000"
    behind = here.model_copy(update={"public_url": "https://sonomark.example.org/"})
    assert up.public_address(behind) == "https://sonomark.example.org"


def test_a_taken_port_is_named_before_anything_starts() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {taken} is in use.*SONOMARK_HTTP_PORT"):
            up.require_free_ports(Settings(dicom_port=1, http_port=taken))


def test_roles_die_with_a_killed_supervisor() -> None:
    script = (
        "import subprocess, service.up as up, time;"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True, preexec_fn=up._die_with_parent);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{child}/stat").exists():
        if Path(f"/proc/{child}/stat").read_text().split(") ")[1][0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()
