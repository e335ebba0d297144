"""A session that comes to its end: said in time, said once, and not said any more when it goes on."""

from collections.abc import Callable

import pytest

from service.db.session import Database
from service.settings import settings
from tests.browser.test_trouble import picture
from tests.review import ward


@pytest.fixture
def announced(visit: Callable[..., object], db: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """A study's page that says that its session ends, as these settings have it."""

    def open_until_then(**limits: int) -> object:
        for name, seconds in limits.items():
            monkeypatch.setattr(settings(), name, seconds)
        page = visit(name="ann")
        page.goto(f"/studies/{ward.admit(db, 1)}")
        page.wait_for_selector("#ending[open]")
        return page

    return open_until_then


def test_the_end_of_a_session_is_announced(announced: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    page = announced(session_idle_s=121)
    assert "Your work is kept" in page.inner_text("#ending-words")
    picture(page, "ending")
    monkeypatch.setattr(settings(), "session_idle_s", 3600)
    with page.expect_response("**/session?stay=true"):
        page.click("#stay")
    page.wait_for_selector("#ending[open]", state="hidden")


def test_an_end_that_was_announced_and_did_not_come(
    announced: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody went on in another tab: the page does not go on saying that the session ends. It asks without a word
    of staying, or two tabs that nobody sits before would keep the session for each other."""
    page = announced(session_idle_s=4)
    monkeypatch.setattr(settings(), "session_idle_s", 3600)
    with page.expect_response("**/session"):
        pass
    page.wait_for_selector("#ending[open]", state="hidden")
    assert not page.is_visible("#again")


def test_an_end_that_nothing_puts_off_is_said_once(announced: Callable[..., object]) -> None:
    """And the page is read on until then."""
    page = announced(session_absolute_s=100)
    page.click("#stay")
    page.keyboard.press("End")  # further frames are asked for, and answered
    page.wait_for_timeout(1500)
    assert not page.is_visible("#ending")
