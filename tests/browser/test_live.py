"""A page that says what happens now: its line opens every time, however late scripts come and whatever fails first."""

from collections.abc import Callable

import pytest

from service.db.session import Database
from tests.review import ward

playwright_api = pytest.importorskip("playwright.sync_api")

SCRIPTS = ("app.js", "vendor/htmx.min.js", "vendor/hx-sse.min.js")


@pytest.mark.parametrize("late", SCRIPTS)
def test_the_worklist_is_live_whichever_script_comes_last(
    visit: Callable[..., object], db: Database, late: str
) -> None:
    ward.admit(db, 1)
    page = visit()
    held: list[object] = []
    page.route(f"**/static/{late}?*", lambda route: held.append(route))
    page.goto("/worklist", wait_until="commit")
    page.wait_for_selector("#rows tr")
    page.wait_for_timeout(500)  # whatever has come by now has run
    assert held and page.inner_text("#live") == ""
    held[0].continue_()
    page.wait_for_selector(".live.on")


@pytest.mark.parametrize("path", ["/worklist", "/worklist?tab=all&q=doe", "/studies/{uid}"])
def test_a_page_is_live_every_time_that_it_opens(visit: Callable[..., object], db: Database, path: str) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    for _ in range(20):
        page.goto(path.replace("{uid}", uid))
        page.wait_for_selector(".live.on")
        page.context.new_cdp_session(page).send("Network.clearBrowserCache")


def test_what_came_while_the_page_was_loading_is_told(visit: Callable[..., object], db: Database) -> None:
    """Another page is open, so that the stream has already told everybody else."""
    ward.admit(db, 1)
    other = visit()
    other.goto("/worklist")
    other.wait_for_selector(".live.on")
    page = visit()
    held: list[object] = []
    page.route("**/hx-sse*", lambda route: held.append(route))
    page.goto("/worklist", wait_until="commit")
    page.wait_for_selector("#rows tr")
    ward.admit(db, 2)
    other.wait_for_selector("#new-studies:not([hidden])")
    other.wait_for_timeout(1500)
    held[0].continue_()
    page.wait_for_selector(".live.on")
    page.wait_for_selector("#new-studies:not([hidden])")
    assert page.inner_text("#new-studies").startswith("1 new study")


@pytest.mark.parametrize("path", ["/worklist", "/studies/{uid}"])
@pytest.mark.parametrize("answer", [503, None])
def test_a_line_that_did_not_open_at_first_is_opened_again(
    visit: Callable[..., object], db: Database, path: str, answer: int | None
) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    refused: list[str] = []

    def refuse(route) -> None:
        refused.append(route.request.url)
        if len(refused) > 2:
            route.continue_()
        elif answer is None:
            route.abort("connectionreset")
        else:
            route.fulfill(status=answer, body="<p>The database is away.</p>")

    page.route("**/events**", refuse)
    page.goto(path.replace("{uid}", uid))
    page.wait_for_selector(".live.on")
    assert len(refused) == 3 and page.inner_text("#alert") == ""


def test_a_list_without_its_scripts_does_not_pass_for_live(visit: Callable[..., object], db: Database) -> None:
    ward.admit(db, 1)
    page = visit()
    page.clock.install()
    page.route("**/hx-sse*", lambda route: route.abort())
    page.goto("/worklist")
    page.clock.fast_forward(11_000)
    page.wait_for_selector(".live.off")
    assert page.inner_text("#live").startswith("not live since")
