"""DICOM over TLS, by the BCP 195 RFC 9325 profile (PS3.15 section B.12): TLS 1.2 and 1.3, forward secrecy, AEAD."""

import select
import socket
import ssl
import time
from pathlib import Path
from threading import Lock

from cryptography import x509
from cryptography.x509.oid import NameOID

from service import certificates, logs
from service.deliver.association import await_one
from service.errors import ConfigurationError
from service.settings import Settings

log = logs.get(__name__)

HANDSHAKE_S = 10.0
# RFC 9325 section 4.2; the suites of TLS 1.3 are all of this kind.
SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Tls:
    """Wraps accepted connections. Changed certificate files are read again without a restart."""

    @classmethod
    def of(cls, chosen: Settings) -> "Tls | None":
        """By the settings; None where no certificate is set.

        Raises:
            ConfigurationError: what TLS needs is missing or cannot be used.
        """
        if chosen.dicom_certificate is None and chosen.dicom_private_key is None:
            if chosen.dicom_tls_port is not None or chosen.dicom_client_ca is not None:
                raise ConfigurationError(
                    "TLS is asked for without a certificate.",
                    cure="Set SONOMARK_DICOM_CERTIFICATE and SONOMARK_DICOM_PRIVATE_KEY.",
                )
            return None
        if chosen.dicom_certificate is None or chosen.dicom_private_key is None:
            raise ConfigurationError(
                "TLS needs a certificate and its private key.",
                cure="Set both SONOMARK_DICOM_CERTIFICATE and SONOMARK_DICOM_PRIVATE_KEY.",
            )
        return cls(chosen.dicom_certificate, chosen.dicom_private_key, chosen.dicom_client_ca)

    def __init__(self, certificate: Path, private_key: Path, client_ca: Path | None) -> None:
        self._files = [path for path in (certificate, private_key, client_ca) if path is not None]
        self._certificate, self._private_key, self._client_ca = certificate, private_key, client_ca
        self._lock = Lock()
        self._ends = ""
        self._stamp = self._stamped()
        self._context = self._load()

    @property
    def mutual(self) -> bool:
        """Whether peers must show a certificate of their own."""
        return self._client_ca is not None

    def ends(self) -> str:
        """When the certificate that is shown ends (UTC, ISO 8601); a file that was replaced is read again."""
        self._current()
        return self._ends

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Shake hands, in HANDSHAKE_S at most.

        Raises:
            OSError: the peer speaks no TLS, none that is allowed, or shows no certificate we trust.
        """
        wrapped = self._current().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        wrapped.setblocking(False)
        deadline = time.monotonic() + HANDSHAKE_S
        try:
            while not _shaken(wrapped, deadline - time.monotonic()):
                pass
        except OSError:
            wrapped.close()
            raise
        wrapped.setblocking(True)
        return wrapped

    def calling(self, certificate: str, address: str) -> tuple[ssl.SSLContext, str]:
        """For a call to a peer, as pynetdicom takes it; ``certificate``: the name that its own must bear, if any."""
        return self.outgoing(named=bool(certificate)), certificate or address

    def outgoing(self, *, named: bool) -> ssl.SSLContext:
        """For calls to a peer, with the same certificate.

        Names in certificates of carts are seldom host names: only where one is configured is it asked for (``named``).
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(SUITES)
        context.check_hostname = named
        context.hostname_checks_common_name = True
        context.load_cert_chain(self._certificate, self._private_key)
        if self._client_ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(self._client_ca)
        return context

    def _current(self) -> ssl.SSLContext:
        stamp = self._stamped()
        with self._lock:
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = self._load()
                    log.info("certificate read again")
                except ConfigurationError as error:
                    log.error("the new certificate is not usable, the old one stays", reason=error.what)
            return self._context

    def _stamped(self) -> list[tuple[int, int]]:
        try:
            return [(path.stat().st_mtime_ns, path.stat().st_ino) for path in self._files]
        except OSError:
            return []

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        try:
            context.set_ciphers(SUITES)
            context.load_cert_chain(self._certificate, self._private_key)
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"The certificate of the DICOM port cannot be used: {error.strerror or error}.",
                cure="Check SONOMARK_DICOM_CERTIFICATE, SONOMARK_DICOM_PRIVATE_KEY and SONOMARK_DICOM_CLIENT_CA.",
            ) from error
        self._ends = certificates.end_of(self._certificate).isoformat()
        return context


def names_of(connection: socket.socket) -> frozenset[str]:
    """Common and DNS names in the certificate that the peer has shown and that was verified, in lower case."""
    shown = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    if not shown:
        return frozenset()
    try:
        certificate = x509.load_der_x509_certificate(shown)
        names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += alternative.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        pass
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return frozenset()  # odd in a way that OpenSSL lets pass: then it bears no name
    return frozenset(name.lower() for name in names)


def _shaken(connection: ssl.SSLSocket, remaining: float) -> bool:
    """One step of the handshake; whether it was the last."""
    if remaining <= 0:
        raise TimeoutError("the TLS handshake takes too long")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        await_one(connection, select.POLLIN, remaining)
        return False
    except ssl.SSLWantWriteError:
        await_one(connection, select.POLLOUT, remaining)
        return False
    return True
