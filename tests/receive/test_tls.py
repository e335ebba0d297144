"""DICOM over TLS, against DCMTK's own tools and a scanner."""

import os
import resource
import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from service.db import heartbeats, peers
from service.db.session import Database
from service.receive.tls import Tls
from tests.ports import free_port
from tests.receive.conftest import US_IMAGE, RunningReceiver, StartReceiver, instances, ultrasound
from tests.receive.test_attacks import MANY_DESCRIPTORS
from tests.receive.test_commitment import Cart, ask


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                      "-keyout", self.pair.key, "-out", self.pair.certificate)  # fmt: skip

    def issue(self, name: str, days: int = 2) -> Pair:
        pair, request = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key"), self.folder / f"{name}.csr"
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                      "-keyout", pair.key, "-out", request)  # fmt: skip
        self._openssl("x509", "-req", "-in", request, "-CA", self.pair.certificate, "-CAkey", self.pair.key,
                      "-CAcreateserial", "-days", str(days), "-out", pair.certificate)  # fmt: skip
        return pair

    def issue_for(
        self,
        name: str,
        begins: timedelta,
        ends: timedelta,
        alternative: str = "",
        names: x509.ExtensionType | None = None,
    ) -> Pair:
        """A certificate that is valid from ``begins`` to ``ends``, counted from now; ``names`` in place of its own."""
        pair, now = Pair(self.folder / f"{uuid4().hex}.pem", self.folder / f"{uuid4().hex}.key"), datetime.now(UTC)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        ca = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        ca_key = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)
        assert isinstance(ca_key, rsa.RSAPrivateKey)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(names or x509.SubjectAlternativeName([x509.DNSName(alternative or name)]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain, form = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return pair

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("server")


def settings_of(server: Pair, **more: str) -> dict[str, str]:
    return {"DICOM_CERTIFICATE": str(server.certificate), "DICOM_PRIVATE_KEY": str(server.key), **more}


def run(program: str, port: int, *arguments: str | Path) -> bool:
    """A DCMTK tool; whether it succeeded."""
    options, files = (arguments[:-1], arguments[-1:]) if program == "storescu" else (arguments, ())
    done = subprocess.run(
        [program, "-v", "-to", "10", "-ta", "10", *options, "-aec", "SONOMARK", "127.0.0.1", str(port), *files],
        env=os.environ | {"TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0


def encrypted_port(receiver: RunningReceiver) -> int:
    return int(receiver.wait_for(r"listening.*port[^0-9]*(\d+).*tls=(?:server|mutual)").group(1))


def test_both_ports_store_by_the_lean_path(
    start_receiver: StartReceiver, db: Database, authority: Authority, server: Pair, tmp_path: Path
) -> None:
    receiver = start_receiver(DICOM_TLS_PORT="0", **settings_of(server))
    port, ca = encrypted_port(receiver), authority.pair.certificate
    assert port != receiver.port
    files = []
    for number, octets in enumerate((32 * 48, 400_000)):
        files.append(tmp_path / f"{number}.dcm")
        ultrasound(PixelData=os.urandom(octets)).save_as(files[-1], enforce_file_format=True)
    assert run("echoscu", port, "+tla", "+cf", ca)
    assert run("storescu", port, "+tla", "+cf", ca, files[0])
    assert run("storescu", port, "+tla", "+cf", ca, files[1])
    assert run("echoscu", receiver.port)
    assert len(instances(db)) == 2
    assert not run("echoscu", port)
    assert run("echoscu", port, "+tla", "+cf", ca)


def test_mutual_tls_lets_nobody_in_without_a_certificate_of_the_authority(
    start_receiver: StartReceiver, authority: Authority, server: Pair, tmp_path: Path
) -> None:
    cart, stranger = authority.issue("cart"), Authority(tmp_path, "stranger").issue("cart")
    receiver = start_receiver(**settings_of(server, DICOM_CLIENT_CA=str(authority.pair.certificate)))
    ca = authority.pair.certificate
    assert run("echoscu", receiver.port, "+tls", cart.key, cart.certificate, "+cf", ca)
    assert not run("echoscu", receiver.port, "+tla", "+cf", ca)
    assert not run("echoscu", receiver.port, "+tls", stranger.key, stranger.certificate, "+cf", ca)
    assert not run("echoscu", receiver.port)
    assert "Traceback" not in receiver.log.read_text()


DAY = timedelta(days=1)


def test_certificates_out_of_their_time_are_refused(
    start_receiver: StartReceiver, authority: Authority, server: Pair
) -> None:
    receiver = start_receiver(**settings_of(server, DICOM_CLIENT_CA=str(authority.pair.certificate)))

    def echo(cart: Pair) -> bool:
        ca = authority.pair.certificate
        return run("echoscu", receiver.port, "+tls", cart.key, cart.certificate, "+cf", ca)

    assert echo(authority.issue_for("cart", -DAY, DAY))
    assert not echo(authority.issue_for("cart", -2 * DAY, -DAY))
    assert not echo(authority.issue_for("cart", DAY, 2 * DAY))
    assert "Traceback" not in receiver.log.read_text()


def test_a_certificate_must_bear_the_name_of_its_peer(
    start_receiver: StartReceiver, authority: Authority, server: Pair
) -> None:
    """Any certificate of the authority opens TLS; an AE title with a name configured asks for that one."""
    listed = "US01;certificate=us01.example,US02"
    receiver = start_receiver(PEERS=listed, **settings_of(server, DICOM_CLIENT_CA=str(authority.pair.certificate)))

    def echo(cart: Pair, title: str) -> bool:
        ca = authority.pair.certificate
        return run("echoscu", receiver.port, "-aet", title, "+tls", cart.key, cart.certificate, "+cf", ca)

    us01, other = authority.issue_for("US01.example", -DAY, DAY), authority.issue_for("other.example", -DAY, DAY)
    assert echo(us01, "US01")
    assert echo(authority.issue_for("cart 1", -DAY, DAY, alternative="us01.example"), "US01")
    assert not echo(other, "US01")
    assert echo(other, "US02")
    assert "its certificate bears another name" in receiver.log.read_text()
    # A kind of name that OpenSSL lets pass and nobody reads (an X.400 address): then it bears none.
    odd = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, bytes.fromhex("3002a300"))
    nameless = authority.issue_for("US01.example", -DAY, DAY, names=odd)
    assert not echo(nameless, "US01")
    assert echo(nameless, "US02")
    assert "Traceback" not in receiver.log.read_text()


@pytest.mark.parametrize(
    ("name", "begins", "ends", "heard"),
    [
        ("us01.example", -DAY, DAY, True),
        ("us01.example", -2 * DAY, -DAY, False),
        ("us01.example", DAY, 2 * DAY, False),
        ("other.example", -DAY, DAY, False),
    ],
    ids=["good", "expired", "not yet valid", "another name"],
)
def test_reports_go_to_no_impostor(
    name: str,
    begins: timedelta,
    ends: timedelta,
    heard: bool,
    start_receiver: StartReceiver,
    authority: Authority,
    server: Pair,
) -> None:
    """A storage commitment report is made only where the peer's certificate is good."""
    port = free_port()
    listed = f"US01;port={port};tls=required;certificate=us01.example"
    ours = authority.issue_for("us01.example", -DAY, DAY)
    client_ca = str(authority.pair.certificate)
    receiver = start_receiver(PEERS=listed, **settings_of(server, DICOM_CLIENT_CA=client_ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs = authority.issue_for(name, begins, ends)
    context.load_cert_chain(theirs.certificate, theirs.key)
    cart = Cart(port).listen(context)
    try:
        calling = ssl.create_default_context(cafile=client_ca)
        calling.check_hostname = False
        calling.load_cert_chain(ours.certificate, ours.key)
        assert ask(receiver, [(US_IMAGE, "1.2.3")], tls=(calling, "server")) == 0
        if heard:
            assert cart.report()[0] == 2
        else:
            receiver.wait_for("commitment not reported")
            assert not cart.heard
    finally:
        cart.stop()


def test_a_peer_that_must_use_tls(start_receiver: StartReceiver, authority: Authority, server: Pair) -> None:
    receiver = start_receiver(DICOM_TLS_PORT="0", PEERS="US01;tls=required,US02", **settings_of(server))
    port, ca = encrypted_port(receiver), authority.pair.certificate
    assert not run("echoscu", receiver.port, "-aet", "US01")
    assert run("echoscu", port, "-aet", "US01", "+tla", "+cf", ca)
    assert run("echoscu", receiver.port, "-aet", "US02")


def test_a_peer_that_was_entered_so_must_use_tls_with_its_own_certificate(
    start_receiver: StartReceiver, authority: Authority, server: Pair, db: Database
) -> None:
    """The options of the page Peers, in a real receiver; a report goes back the same way."""
    port, name = free_port(), "us01.example"
    with db.begin() as session:
        peers.add(session, "US01", "127.0.0.1", port, "", "admin", tls="required", certificate=name)
        peers.add(session, "US02", "127.0.0.1", None, "", "admin")
        peers.add(session, "US03", "127.0.0.1", None, "", "admin", tls="required")
    ca = authority.pair.certificate
    receiver = start_receiver(DICOM_TLS_PORT="0", **settings_of(server, DICOM_CLIENT_CA=str(ca)))
    encrypted = encrypted_port(receiver)
    ours, other = authority.issue_for(name, -DAY, DAY), authority.issue_for("other.example", -DAY, DAY)

    def echo(title: str, cart: Pair) -> bool:
        return run("echoscu", encrypted, "-aet", title, "+tls", cart.key, cart.certificate, "+cf", ca)

    heard = [run("echoscu", receiver.port, "-aet", title) for title in ("US01", "US02", "US03")]
    assert heard == [False, True, False], "in the clear"
    assert "this peer must use TLS" in receiver.log.read_text()
    assert [echo("US01", ours), echo("US01", other), echo("US03", other)] == [True, False, True]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.certificate, ours.key)
    cart = Cart(port).listen(context)
    try:
        calling = ssl.create_default_context(cafile=str(ca))
        calling.check_hostname = False
        calling.load_cert_chain(ours.certificate, ours.key)
        receiver.port = encrypted
        assert ask(receiver, [(US_IMAGE, "1.2.3")], tls=(calling, "server")) == 0
        assert cart.report()[0] == 2
    finally:
        cart.stop()


def test_old_versions_are_refused(start_receiver: StartReceiver, server: Pair) -> None:
    receiver = start_receiver(**settings_of(server))
    if shutil.which("sslscan") is None:
        pytest.skip("no sslscan here")
    scan = ["sslscan", "--no-colour", f"127.0.0.1:{receiver.port}"]
    found = subprocess.run(scan, capture_output=True, text=True, check=True).stdout
    for version in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
        assert f"{version:8}  disabled" in found, found
    for version in ("TLSv1.2", "TLSv1.3"):
        assert f"{version:8}  enabled" in found, found
    accepted = [line for line in found.splitlines() if line.startswith(("Preferred", "Accepted"))]
    assert accepted
    assert all("GCM" in line or "CHACHA20" in line for line in accepted)


def test_calls_offer_what_the_door_accepts(server: Pair) -> None:
    """Reports go to carts by the same profile."""
    offered = [each["name"] for each in Tls(server.certificate, server.key, None).outgoing(named=False).get_ciphers()]
    assert offered and all("GCM" in name or "CHACHA20" in name for name in offered), offered


def test_connections_beyond_the_thousandth_descriptor_are_served(
    start_receiver: StartReceiver, authority: Authority, server: Pair
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this machine allows fewer descriptors")
    receiver = start_receiver(before=MANY_DESCRIPTORS, **settings_of(server))
    assert run("echoscu", receiver.port, "+tla", "+cf", authority.pair.certificate)


def test_half_a_handshake_ends(start_receiver: StartReceiver, authority: Authority, server: Pair) -> None:
    receiver = start_receiver(**settings_of(server))
    silent = [socket.create_connection(("127.0.0.1", receiver.port), timeout=20) for _ in range(20)]
    for connection in silent:
        connection.send(b"\x16")
    assert run("echoscu", receiver.port, "+tla", "+cf", authority.pair.certificate)
    assert silent[0].recv(100) == b""
    for connection in silent:
        connection.close()


def test_a_new_certificate_is_taken_up_without_a_restart(
    start_receiver: StartReceiver, authority: Authority, tmp_path: Path, db: Database
) -> None:
    """And the heartbeat says when it ends, for whoever watches."""
    ours = Pair(tmp_path / "ours.pem", tmp_path / "ours.key")
    first, second = authority.issue("first", days=2), authority.issue("second", days=9)
    shutil.copy(first.certificate, ours.certificate)
    shutil.copy(first.key, ours.key)
    receiver = start_receiver(**settings_of(ours))
    assert shown(receiver.port) == ssl.PEM_cert_to_DER_cert(first.certificate.read_text())
    until_told_to_end(db, first)
    ours.certificate.write_text("broken")
    assert shown(receiver.port) == ssl.PEM_cert_to_DER_cert(first.certificate.read_text())
    shutil.copy(second.key, ours.key)
    shutil.copy(second.certificate, ours.certificate)
    until_told_to_end(db, second)  # no peer need have called
    assert shown(receiver.port) == ssl.PEM_cert_to_DER_cert(second.certificate.read_text())


def until_told_to_end(db: Database, pair: Pair) -> None:
    """Wait for the heartbeat that tells of this certificate."""
    wanted = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).not_valid_after_utc.isoformat()
    deadline = time.monotonic() + 20
    said: list[str | None] = []
    while time.monotonic() < deadline:
        with db.read() as session:
            said = [each.detail.get("certificate_ends") for each in heartbeats.details(session, "receive")]
        if said == [wanted]:
            return
        time.sleep(0.1)
    raise AssertionError(f"{said} instead of {wanted}")


def shown(port: int) -> bytes:
    """The certificate that the port shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as connection:
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate
