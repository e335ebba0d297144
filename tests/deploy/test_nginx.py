"""The TLS front, run for real before a small web server: its profile, its redirect, what it keeps to itself."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.deploy.compose import HOUSE
from tests.ports import free_port

NGINX_FOLDER = HOUSE / "deploy" / "nginx"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers that reached it."""

    def do_GET(self) -> None:
        body = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", params=["container", "host"])
def ports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Ports of plain HTTP and of HTTPS: of the file as it is, and of what `for-host.sh` makes of it."""
    if NGINX is None:
        pytest.skip("no nginx")
    folder = tmp_path_factory.mktemp("nginx")
    subprocess.run([HOUSE / "deploy" / "make-secrets.sh", folder, "sonomark.test"], check=True, capture_output=True)
    behind = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    http, https = free_port(), free_port()
    own = {"/tmp/": f"{folder}/"}
    if request.param == "host":
        config = subprocess.check_output([NGINX_FOLDER / "for-host.sh"], text=True)
        own |= {
            "listen 80;": f"listen 127.0.0.1:{http};",
            "listen 443 ": f"listen 127.0.0.1:{https} ",
            "127.0.0.1:8000": f"127.0.0.1:{behind.server_port}",
            "/etc/sonomark/secrets/": f"{folder}/",
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/": f"{folder}/",
        }
    else:
        config = (NGINX_FOLDER / "nginx.conf").read_text()
        own |= {
            "listen 8080": f"listen 127.0.0.1:{http}",
            "listen 8443": f"listen 127.0.0.1:{https}",
            "review:8000": f"127.0.0.1:{behind.server_port}",
            "/run/secrets/tls_certificate": f"{folder}/tls_certificate.pem",
            "/run/secrets/tls_private_key": f"{folder}/tls_private_key.pem",
            "/dev/stdout": f"{folder}/access.log",
            "/dev/stderr": f"{folder}/error.log",
        }
    for here, there in own.items():
        assert here in config
        config = config.replace(here, there)
    (folder / "nginx.conf").write_text(config)
    server = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-g", "daemon off;"])
    try:
        _wait_for(https)
        yield http, https
    finally:
        server.terminate()
        server.wait(10)
        behind.shutdown()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline, "nginx did not start"
        time.sleep(0.05)


def _client(version: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    return context


def _get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, dict[str, str]]:
    connection = HTTPSConnection("127.0.0.1", port, context=_client(ssl.TLSVersion.TLSv1_3), timeout=10)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_tls_is_spoken(ports: tuple[int, int], version: ssl.TLSVersion) -> None:
    raw = socket.create_connection(("127.0.0.1", ports[1]), timeout=10)
    with _client(version).wrap_socket(raw) as tls:
        cipher = tls.cipher()
    assert cipher is not None
    assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(ports: tuple[int, int], version: ssl.TLSVersion) -> None:
    raw = socket.create_connection(("127.0.0.1", ports[1]), timeout=10)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _client(version).wrap_socket(raw)


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "AES256-SHA"])
def test_weak_ciphers_are_refused(ports: tuple[int, int], cipher: str) -> None:
    context = _client(ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    raw = socket.create_connection(("127.0.0.1", ports[1]), timeout=10)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(raw)


def test_plain_http_is_sent_to_https(ports: tuple[int, int]) -> None:
    connection = HTTPConnection("127.0.0.1", ports[0], timeout=10)
    connection.request("GET", "/studies?x=1", headers={"Host": "sonomark.test"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Location")) == (308, "https://sonomark.test/studies?x=1")


def test_the_address_is_the_one_the_proxy_saw(ports: tuple[int, int]) -> None:
    status, body, headers = _get(ports[1], "/api/flow", {"X-Forwarded-For": "203.0.113.9"})
    assert status == 200
    assert "X-Forwarded-For: 127.0.0.1\n" in body.replace("\r", "")
    assert "203.0.113.9" not in body
    assert "max-age" in headers["Strict-Transport-Security"]


def test_metrics_stay_inside(ports: tuple[int, int]) -> None:
    assert _get(ports[1], "/metrics")[0] == 404


def test_sign_in_is_throttled(ports: tuple[int, int]) -> None:
    assert 429 in {_get(ports[1], "/sign-in")[0] for _ in range(25)}
