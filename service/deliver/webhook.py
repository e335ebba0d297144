"""A POST to a hospital's own system for each flagged study: signed, without patient data, to allowed hosts only."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from service.errors import ConfigurationError, PeerError, PeerRefused

TIMEOUT_S = 10.0
_CURE = "Correct SONOMARK_WEBHOOK_URL or SONOMARK_WEBHOOK_HOSTS."


class ForbiddenTarget(ConfigurationError):
    """A webhook may not go there."""

    cure = _CURE


def post(url: str, told: dict[str, Any], *, number: int, allowed: str, secret: str) -> None:
    """POST ``told`` as JSON. ``number`` is the delivery's, so that a receiver can tell a repeat.

    The host must be one of ``allowed``, what it resolves to is looked at and connected to as such, and a redirect is a
    refusal: neither a name server nor the receiver can lead the request elsewhere.

    Raises ForbiddenTarget, or PeerError when the receiver is away or answers anything but 2xx.
    """
    parts = urlsplit(url)
    address = _address(parts, [host.strip().lower() for host in allowed.split(",") if host.strip()])
    body = json.dumps(told, sort_keys=True).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "Sonomark", "X-Sonomark-Delivery": str(number)}
    if secret:
        digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers["X-Sonomark-Signature"] = f"sha256={digest}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with closing(_connection(parts, address)) as connection:
            connection.request("POST", path, body, headers)
            status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise PeerError(
            f"The webhook's receiver does not answer ({type(error).__name__}).", cure="Look whether it runs."
        ) from error
    if not 200 <= status < 300:
        kind = PeerRefused if status in (400, 409, 410, 413, 415, 422) else PeerError  # of this body alone, or of all
        raise kind(f"The webhook's receiver answered {status}.", cure="Look into its log; it is tried again.")


def _address(parts: SplitResult, allowed: list[str]) -> str:
    """The address to connect to."""
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("https", "http") or not host:
        raise ForbiddenTarget("A webhook's address begins with https:// or http:// and names a host.")
    if host not in allowed:
        raise ForbiddenTarget("The webhook's host is not among the allowed ones.")
    try:
        found = socket.getaddrinfo(host, parts.port or 0, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PeerError("The webhook's host cannot be resolved.", cure=_CURE) from error
    addresses = [str(each[4][0]) for each in found]
    for address in addresses:
        _examine(address, literal=host)
    return addresses[0]


def _examine(address: str, literal: str) -> None:
    """Refuse addresses that are no receiver's: link-local (cloud metadata) never, loopback only when written so."""
    at = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(at, "ipv4_mapped", None)
    at = mapped or at
    if at.is_link_local or at.is_multicast or at.is_unspecified or at.is_reserved:
        raise ForbiddenTarget("The webhook's host resolves to an address that is no receiver's.")
    if at.is_loopback and literal not in ("localhost", address):
        raise ForbiddenTarget("The webhook's host resolves to this machine itself.")


def _connection(parts: SplitResult, address: str) -> HTTPConnection:
    if parts.scheme == "http":
        plain = HTTPConnection(parts.netloc.rpartition("@")[2], timeout=TIMEOUT_S)
        plain.sock = socket.create_connection((address, parts.port or 80), TIMEOUT_S)
        return plain
    secure = HTTPSConnection(parts.netloc.rpartition("@")[2], timeout=TIMEOUT_S)
    raw = socket.create_connection((address, parts.port or 443), TIMEOUT_S)
    secure.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=parts.hostname)
    return secure
