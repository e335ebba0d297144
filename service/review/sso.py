"""Single sign-on by OpenID Connect: the authorization code flow with PKCE, and roles from the provider's claims.

The provider's answer is believed when its ID token is signed by one of the provider's keys with an asymmetric
algorithm and issuer, audience, times and nonce fit (OpenID Connect Core 1.0, 3.1.3.7).
"""

import base64
import json
import re
from functools import lru_cache
from secrets import token_urlsafe
from threading import Lock
from typing import Annotated, Any
from urllib.parse import urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from service import logs
from service.db import audit, users
from service.db.session import database
from service.db.tables import Role
from service.errors import ConfigurationError, NotAllowed, NotFound, PeerError, SonomarkError
from service.review.auth import is_secure, let_in, local, sso_label
from service.review.deps import SSO, address_of, secret_key
from service.review.pages import render
from service.settings import settings

router = APIRouter(prefix="/sign-in/sso", include_in_schema=False)
log = logs.get(__name__)

COOKIE = "sonomark_sso"
MINUTES_TO_SIGN_IN = 10
TIMEOUT_S = 5.0
LEEWAY_S = 60
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Text = Annotated[str, Query(max_length=2048)]


class Provider:
    """The identity provider: what it says of itself, and its keys, fetched when they are first needed."""

    def __init__(self, issuer: str) -> None:
        place = urlsplit(issuer)
        if place.scheme != "https" and place.hostname not in LOOPBACK:
            raise ConfigurationError(
                "The identity provider must be reached by https.", cure="Set SONOMARK_OIDC_ISSUER."
            )
        self.issuer = issuer
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._lock = Lock()

    @property
    def metadata(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0; its issuer must be the one that was asked."""
        with self._lock:
            if not self._metadata:
                found = _get_json(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
                if found.get("issuer") != self.issuer:
                    raise ConfigurationError(
                        "The identity provider gives another name than SONOMARK_OIDC_ISSUER.",
                        cure="Set it to exactly what the provider calls its issuer.",
                    )
                self._metadata = found
            return self._metadata

    def keys(self, *, again: bool = False) -> KeySet:
        """The keys it signs with; fetched again when a token names one that is not known yet."""
        address = self.metadata["jwks_uri"]
        with self._lock:
            if self._keys is None or again:
                self._keys = KeySet.import_key_set(_get_json(address))  # type: ignore[arg-type]
            return self._keys

    def claims(self, token: dict[str, Any], nonce: str) -> dict[str, Any]:
        """What a token answer says of the person; raises NotAllowed when it is not to be believed."""
        given = str(token.get("id_token", ""))
        algorithms = [each for each in ALGORITHMS if each in self._signs_with()]
        try:
            try:
                decoded = jwt.decode(given, self.keys(), algorithms=algorithms)
            except InvalidKeyIdError:
                decoded = jwt.decode(given, self.keys(again=True), algorithms=algorithms)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {"iss": {"essential": True, "value": self.issuer}, "aud": {"value": settings().oidc_client_id}},
                {"nonce": nonce, "client_id": settings().oidc_client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=LEEWAY_S)
        except (JoseError, AuthlibBaseError, ValueError) as error:
            log.warning("an identity token was refused", cause=type(error).__name__)
            raise NotAllowed("The identity provider's answer cannot be believed.", cure="Begin again.") from error
        return dict(claims)

    def _signs_with(self) -> list[str]:
        return list(self.metadata.get("id_token_signing_alg_values_supported") or ["RS256"])


@router.get("")
def start(request: Request, next: Text = "/") -> Response:
    """Send the browser to the identity provider."""
    request.app.state.attempts.count(address_of(request))
    provider = configured()
    kept = {"nonce": token_urlsafe(24), "verifier": token_urlsafe(48), "next": local(next)}
    try:
        with _client(request) as client:
            address, state = client.create_authorization_url(
                provider.metadata["authorization_endpoint"], nonce=kept["nonce"], code_verifier=kept["verifier"]
            )
    except SonomarkError as error:
        return _refused(request, str(error), 502)
    answer = RedirectResponse(address, status_code=303)
    answer.set_cookie(
        COOKIE,
        _box().encrypt(json.dumps(kept | {"state": state}).encode()).decode(),
        max_age=MINUTES_TO_SIGN_IN * 60,
        path="/sign-in/sso",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )
    return answer


@router.get("/back", name="sso_back")
def back(request: Request, state: Text = "", error: Text = "", iss: Text = "") -> Response:
    """The identity provider sends the browser back, with a code that is worth one token."""
    request.app.state.attempts.count(address_of(request))
    provider = configured()
    try:
        kept = _kept(request, state)
        if iss and iss != provider.issuer:  # RFC 9207: another provider's answer
            raise NotAllowed("This answer comes from another identity provider.", cure="Begin again.")
        if error:
            raise NotAllowed("The identity provider did not let you in.", cure="Begin again.")
        claims = _exchange(request, provider, kept)
        with database().begin() as session:
            subject = f"{provider.issuer}\n{claims['sub']}"
            role, site = role_of(claims), str(_claim(claims, settings().oidc_site_claim) or "")
            user = users.from_sso(session, subject, name_of(claims), role, site)
    except SonomarkError as problem:
        with database().begin() as session:
            audit.record(session, "nobody", "sign_in.refused", "", address_of(request), {"by": SSO})
        return _refused(request, str(problem), 502 if isinstance(problem, PeerError) else 403)
    answer = let_in(request, user, kept["next"], SSO)
    answer.delete_cookie(COOKIE, path="/sign-in/sso", secure=is_secure(request), httponly=True, samesite="lax")
    return answer


@lru_cache
def configured() -> Provider:
    """The provider of the settings; raises NotFound without one, ConfigurationError when roles are mapped wrongly."""
    if not settings().oidc_issuer:
        raise NotFound("There is no single sign-on here.", cure="Set SONOMARK_OIDC_ISSUER.")
    roles_by_group()
    return Provider(settings().oidc_issuer)


def roles_by_group() -> dict[str, Role]:
    """The setting OIDC_ROLES: which of the provider's groups gives which role."""
    pairs = [entry.rpartition("=") for entry in settings().oidc_roles.split(",") if entry.strip()]
    try:
        return {group.strip(): Role(role.strip()) for group, _, role in pairs}
    except ValueError as error:
        raise ConfigurationError(
            "SONOMARK_OIDC_ROLES names a role that there is not.", cure=f"Roles are {', '.join(Role)}."
        ) from error


def role_of(claims: dict[str, Any]) -> Role:
    """The most that any of the person's groups gives; raises NotAllowed when none gives a role."""
    held = _claim(claims, settings().oidc_role_claim)
    groups = [str(each) for each in held] if isinstance(held, list) else [str(held)]
    given = {role for group, role in roles_by_group().items() if group in groups}
    if not given:
        raise NotAllowed("Your organisation gives you no role in Sonomark.", cure="Ask an administrator.")
    most_first = (Role.ADMIN, Role.AUDITOR, Role.REVIEWER, Role.SONOGRAPHER, Role.VIEWER)
    return next(role for role in most_first if role in given)


def name_of(claims: dict[str, Any]) -> str:
    """The account's name: the claim's text with what no account name may hold made a dash."""
    told = str(_claim(claims, settings().oidc_name_claim) or claims["sub"])
    return re.sub(r"[^A-Za-z0-9._@-]", "-", told).lstrip("._@-")[:64]


def _claim(claims: dict[str, Any], path: str) -> Any:
    found: Any = claims
    for part in path.split(".") if path else ():
        found = found.get(part) if isinstance(found, dict) else None
    return found if path else None


def _client(request: Request) -> OAuth2Session:
    client = OAuth2Session(
        settings().oidc_client_id,
        settings().oidc_client_secret or None,
        token_endpoint_auth_method="client_secret_basic" if settings().oidc_client_secret else "none",
        scope=settings().oidc_scope,
        redirect_uri=str(request.url_for("sso_back")),
        code_challenge_method="S256",
    )
    client.trust_env = False  # a proxy of the environment is no place for codes and secrets
    return client


def _exchange(request: Request, provider: Provider, kept: dict[str, str]) -> dict[str, Any]:
    """The person's claims for the code in the address; asks the provider's user info where the token lacks a claim."""
    try:
        with _client(request) as client:
            token = client.fetch_token(
                provider.metadata["token_endpoint"],
                authorization_response=str(request.url),
                state=kept["state"],
                code_verifier=kept["verifier"],
                timeout=TIMEOUT_S,
            )
            claims = provider.claims(token, kept["nonce"])
            more = provider.metadata.get("userinfo_endpoint")
            if more:
                told = client.get(more, timeout=TIMEOUT_S).json()
                if told.get("sub") == claims["sub"]:  # Core 5.3.2: otherwise it must not be used
                    claims = told | claims
    except AuthlibBaseError as error:
        raise NotAllowed("The identity provider did not accept this sign-in.", cure="Begin again.") from error
    except (requests.RequestException, ValueError) as error:
        raise _away(error) from error
    return claims


def _kept(request: Request, state: str) -> dict[str, str]:
    """What was put into the browser's cookie before it left; proves that this browser asked."""
    try:
        sealed = request.cookies.get(COOKIE, "").encode()
        kept: dict[str, str] = json.loads(_box().decrypt(sealed, ttl=MINUTES_TO_SIGN_IN * 60))
    except InvalidToken as error:
        raise NotAllowed("This sign-in was not begun here, or took too long.", cure="Begin again.") from error
    if not state or state != kept["state"]:
        raise NotAllowed("This answer belongs to another sign-in.", cure="Begin again.")
    return kept


def _get_json(address: str) -> dict[str, Any]:
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(address, timeout=TIMEOUT_S)
            answer.raise_for_status()
            found = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise _away(error) from error
    if not isinstance(found, dict):
        raise _away(ValueError())
    return found


def _away(error: Exception) -> PeerError:
    log.warning("the identity provider did not answer", cause=type(error).__name__)
    return PeerError("The identity provider does not answer.", cure="Sign in with a password, or try again later.")


def _refused(request: Request, problem: str, status: int) -> Response:
    context = {"next": "/", "problem": problem, "name": "", "sso": sso_label()}
    return render(request, "sign_in.html", context, status=status)


def _box() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(HKDF(SHA256(), 32, None, b"sonomark single sign-on").derive(secret_key())))
