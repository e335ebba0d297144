"""What stands before every route: trusted hosts, cross-site checks, body limit, and the headers of every answer."""

from collections.abc import Awaitable, Callable
from time import perf_counter
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.review.problems import Problem, accident, answer
from service.settings import settings
from service.telemetry import HTTP_SECONDS

BODY_LIMIT = 1024 * 1024
# Instances stream to the disk, whose watermark bounds them; nothing of such a body is read before its sender is known.
STORE_PATH, STORE_LIMIT = "/dicomweb/studies", 1 << 40
SAFE = ("GET", "HEAD", "OPTIONS")
LOOPBACK = ("127.0.0.1", "localhost", "::1", "testserver")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-XSS-Protection": "1; mode=block",  # no browser has that filter any more; scanners ask for it all the same
    # Not no-referrer: browsers then send `Origin: null` with forms, and the cross-site check below needs it.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """One ASGI layer in front of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status, begun = 500, False
        secure = scope["scheme"] == "https"

        async def sending(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if secure:
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        try:
            refusal = _refusal(scope)
            if refusal is not None:
                await answer(Request(scope), refusal)(scope, receive, sending)
            else:
                await self.app(scope, _limited(receive, _limit(scope)), sending)
        except Exception as error:  # noqa: BLE001  # the outermost place: whatever happened becomes an answer
            told = accident(Request(scope), error)
            if not begun:
                await told(scope, receive, sending)
            # Otherwise the server cuts the answer off; raising would log a traceback that may quote patient data.
        finally:
            route = getattr(scope.get("route"), "path", "other")
            HTTP_SECONDS.labels(route, str(status)).observe(perf_counter() - started)


def _refusal(scope: Scope) -> Problem | None:
    headers = Headers(scope=scope)
    if not host_is_trusted(headers.get("host", "")):
        return Problem(
            title="Bad Request",
            status=400,
            detail="This host name is not one of Sonomark's.",
            cure="Add it to SONOMARK_HTTP_HOSTS.",
        )
    if scope["method"] not in SAFE and is_cross_site(headers):
        return Problem(title="Forbidden", status=403, detail="This request came from another site.")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > _limit(scope):
        return Problem(title="Content Too Large", status=413, detail="The request's body is larger than 1 MB.")
    return None


def host_is_trusted(host: str) -> bool:
    """Whether the Host header names this service (DNS rebinding sends a stranger's name to the loopback address)."""
    name = urlsplit(f"//{host}").hostname or ""
    allowed = [each.strip() for each in settings().http_hosts.split(",") if each.strip()]
    if allowed:
        return name in allowed or name in LOOPBACK[:3]
    return settings().http_host not in LOOPBACK or name in LOOPBACK


def is_cross_site(headers: Headers) -> bool:
    """Whether the browser says that another site made this request. Programs send neither header."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def _limit(scope: Scope) -> int:
    """Bytes that the body of this request may have."""
    return STORE_LIMIT if stores(scope) else BODY_LIMIT


def stores(scope: Scope) -> bool:
    """Whether the request brings instances: nobody but the route itself may read such a body."""
    return scope["method"] == "POST" and str(scope["path"]).startswith(STORE_PATH)


def _limited(receive: Receive, limit: int) -> Callable[[], Awaitable[Message]]:
    """The body in pieces, cut off when it grows over the limit without having said so."""
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            return {"type": "http.disconnect"}
        return message

    return receiving
