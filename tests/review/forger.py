"""An identity provider that signs whatever a test asks of it, to see what is refused."""

import base64
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey


class Forger:
    """Its claims, its key and its algorithm are a test's to change."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, parameters={"kid": "one"}, auto_kid=False)
        self.published = self.key
        self.algorithm = "RS256"
        self.changes: dict[str, Any] = {}
        self.nonce = ""
        self.issuer = ""
        self.issuer_told = ""

    def id_token(self) -> str:
        at = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": "7",
            "aud": "sonomark",
            "exp": at + 60,
            "iat": at,
            "nonce": self.nonce,
            "preferred_username": "ann",
            "groups": ["pacs-admins"],
        }
        claims = {name: value for name, value in (claims | self.changes).items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.algorithm == "none":
            return jwt.encode(header, claims, None, algorithms=["none"])
        if self.algorithm == "HS256":  # the public key as a shared secret, CVE-2015-9235
            told = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
            shared = self.published.as_pem(private=False)
            return f"{told}.{_base64(hmac.digest(shared, told.encode(), 'sha256'))}"
        return jwt.encode(header, claims, self.key)

    def answers(self) -> dict[str, Any]:
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.issuer_told or self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            },
            "/keys": {"keys": [self.published.as_dict(private=False)]},
        }


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def working() -> Iterator[Forger]:
    """The forger behind a port of loopback."""
    forger = Forger()

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(forger.answers().get(self.path, {}))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self._say({"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": forger.id_token()})

        def log_message(self, *_: object) -> None:
            pass

        def _say(self, told: dict[str, Any]) -> None:
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    forger.issuer = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield forger
    server.shutdown()
    server.server_close()
