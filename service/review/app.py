"""The dashboard's application and its process."""

import gc
import socket

import uvicorn
from fastapi import Depends, FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from service import __version__, logs
from service.db import heartbeats, users
from service.db.session import database
from service.db.tables import Role, Switch
from service.dicomweb import query, retrieve, store
from service.errors import ConfigurationError
from service.review import (
    accounts,
    archive,
    audits,
    auth,
    corrections,
    decisions,
    deliveries,
    double_reads,
    drafts,
    events,
    flow,
    health,
    holds,
    instances,
    models,
    my_rates,
    peers,
    preferences,
    problems,
    profile,
    ready,
    reevaluations,
    reports,
    retention,
    rulebooks,
    second_reads,
    selftest,
    session,
    sso,
    study,
    watch,
    what_ifs,
    worklist,
)
from service.review.blinding import sighted
from service.review.deps import genuine, needs, roles_that_must_enrol, secret_key, sender
from service.review.kept import Kept
from service.review.pages import STATIC, compile_all
from service.review.security import Guard
from service.settings import settings

ROLE = "review"
CHOICES_S = 10  # how late a new station may be offered by the worklist's filters
COUNTING_TIMES = 20  # pages of the flow count every image there is: a million take a third of a second
BANNERS_S = 2  # how late another process's pages tell that work is paused
ROOMS = (
    auth,
    sso,
    profile,
    health,
    worklist,
    decisions,
    session,
    study,
    second_reads,
    watch,
    corrections,
    drafts,
    events,
    holds,
    instances,
    flow,
    peers,
    models,
    selftest,
    my_rates,
    reports,
    double_reads,
    deliveries,
    archive,
    retention,
    rulebooks,
    what_ifs,
    reevaluations,
    accounts,
    audits,
    preferences,
)


def create_app() -> FastAPI:
    """The whole dashboard; it opens no connection until it is asked something."""
    app = FastAPI(
        title="Sonomark",
        version=__version__,
        description="Checks that ultrasound images carry the annotations a hospital requires.",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(genuine), Depends(sighted)],
    )
    app.state.attempts = auth.Attempts()
    app.state.ticker = events.Ticker()
    app.state.choices = Kept[dict[str, list[str]]](CHOICES_S)
    app.state.flow = Kept[flow.Counted](0, many_times=COUNTING_TIMES)
    app.state.banners = Kept[list[Switch]](BANNERS_S)
    app.add_middleware(Guard)
    problems.install(app)
    for room in ROOMS:
        app.include_router(room.router)
    for way, who in ((query, needs(Role.VIEWER)), (retrieve, needs(Role.VIEWER)), (store, sender)):
        app.include_router(way.router, dependencies=[Depends(who)], responses=problems.PROBLEM_RESPONSES)
    # Only what holds no secret is compressed: a page's length must not tell of the token inside it (BREACH).
    app.mount("/static", GZipMiddleware(Assets(directory=STATIC)), name="static")
    return app


def serve() -> None:
    """Run the dashboard until SIGTERM or SIGINT."""
    logs.configure(ROLE)
    house = settings()
    secret_key()
    roles_that_must_enrol()
    _require_free(house.http_host, house.http_port)
    if house.oidc_issuer:
        sso.configured()
    with database().read() as session:
        if not users.anybody(session):
            auth.announce_set_up()
    config = uvicorn.Config(
        create_app(),
        host=house.http_host,
        port=house.http_port,
        log_level="warning",
        access_log=False,  # addresses hold accession numbers and search texts
        server_header=False,
        forwarded_allow_ips=house.http_proxies,
        date_header=True,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=3,
        ssl_certfile=house.http_certificate or None,
        ssl_keyfile=house.http_private_key or None,
    )
    try:
        config.load()
    except OSError as error:  # TLS's own errors are among those
        raise ConfigurationError(
            f"The dashboard's certificate or its private key cannot be used: {error.strerror or error}.",
            cure="Correct SONOMARK_HTTP_CERTIFICATE and SONOMARK_HTTP_PRIVATE_KEY: two PEM files that belong together.",
        ) from error
    compile_all()
    # What was loaded lives as long as the process: no collection need look at it again while somebody waits.
    gc.collect()
    gc.freeze()
    beating = heartbeats.keep_beating(database(), ROLE)
    readying = ready.keep_ready()
    try:
        uvicorn.Server(config).run()
    finally:
        readying.set()
        beating.set()


def _require_free(host: str, port: int) -> None:
    """Raises ConfigurationError where the dashboard could not listen."""
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
    except OSError as error:
        raise ConfigurationError(
            f"The dashboard cannot listen on {host}, port {port}: {error.strerror or error}.",
            cure="Stop what uses the port, or correct SONOMARK_HTTP_HOST and SONOMARK_HTTP_PORT.",
        ) from error


class Assets(StaticFiles):
    """Static files; one asked for with its digest may be kept for a year.

    They come whole: a server may ignore Range (RFC 9110, 14.2), and a header that names thousands costs nothing then.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = b"v=" in scope.get("query_string", b"")
        if scope["type"] == "http":
            scope = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"range"]}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "no-cache"
            await send(message)

        await super().__call__(scope, receive, sending)
