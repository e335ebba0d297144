"""The dashboard on a real port, and Debian's chromium in front of it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread, Timer

import psutil
import pytest
import uvicorn

from service.archive.store import archive
from service.db import users
from service.db.session import Database
from service.db.tables import Role
from service.review import deps, frames, instances
from service.review.app import create_app

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "review"))  # ward.py

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
END_S = 60.0  # in which contexts close, on whatever machine
AXE = Path(__file__).resolve().parents[2] / "service/review/viewer/node_modules/axe-core/axe.min.js"

playwright_api = pytest.importorskip("playwright.sync_api")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture
def address(db: Database) -> Iterator[str]:
    """The dashboard's own address."""
    for cached in (archive, deps.secret_key, frames.loaded):
        cached.cache_clear()
    instances._seen = instances.Seen()
    server = uvicorn.Server(
        uvicorn.Config(create_app(), port=0, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    )
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
        assert thread.is_alive(), "the dashboard did not start"
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def browsers() -> Iterator[Callable[[], object]]:
    """The one browser of all tests; another if it has ended."""
    if not CHROMIUM.exists():
        pytest.skip("no chromium on this machine")
    with playwright_api.sync_playwright() as playwright:
        started = []

        def running() -> object:
            if not (started and started[-1].is_connected()):
                started.append(playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS))
            return started[-1]

        yield running
        for browser in started:
            browser.close()


@pytest.fixture
def chromium(browsers: Callable[[], object]) -> object:
    return browsers()


@pytest.fixture
def visit(chromium, address: str, db: Database) -> Iterator[Callable[..., object]]:
    """A page of a person who is signed in; scripts that fail or complain fail the test."""
    contexts, complaints = [], []

    def enter(role: Role = Role.REVIEWER, name: str = "", theme: str = "dark", width: int = 1280, height: int = 720):
        context = chromium.new_context(
            base_url=address,
            viewport={"width": width, "height": height},
            color_scheme=theme,
            reduced_motion="reduce",  # nothing is looked at half-way through a transition
        )
        contexts.append(context)
        with db.begin() as session:
            user = users.find_user(session, name or role.value)
            user = user or users.create_user(session, name or role.value, role)
            secret = users.open_session(session, user)
        context.add_cookies([{"name": deps.COOKIE, "value": secret, "url": address}])
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.accept()))
        page.on("console", lambda message: "Content Security" in message.text and complaints.append(message.text))
        return page

    yield enter
    ending = Timer(END_S, _end_browsers)
    ending.start()
    try:
        for context in contexts:
            context.close()
    finally:
        ending.cancel()
    assert not complaints


def _end_browsers() -> None:
    """Chromium that does not close a context is ended: `close` fails then, and knows no timeout of its own."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("chromium") and process.is_running():
            process.kill()


@pytest.fixture
def axe() -> str:
    """axe-core's source, as `npm ci` puts it beside the viewer's sources."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm ci --prefix service/review/viewer")
    return AXE.read_text()
