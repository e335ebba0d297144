"""A session that comes to its end: said in time, said once, and not said any more when it goes on."""

from collections.abc import Callable

import pytest

from service.db.session import Database
from service.settings import settings
from tests.browser.test_trouble import picture
from tests.review import ward


def test_the_end_of_a_session_is_announced(
    visit: Callable[..., object], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = ward.admit(db, 1)
    monkeypatch.setattr(settings(), "session_idle_s", 121)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    page.wait_for_selector("#ending[open]")
    assert "Your work is kept" in page.inner_text("#ending-words")
    picture(page, "ending")
    monkeypatch.setattr(settings(), "session_idle_s", 3600)
    page.click("#stay")
    page.wait_for_selector("#ending[open]", state="hidden")


def test_an_end_that_was_announced_and_did_not_come(
    visit: Callable[..., object], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody went on in another tab: the page does not go on saying that the session ends."""
    uid = ward.admit(db, 1)
    monkeypatch.setattr(settings(), "session_idle_s", 4)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    page.wait_for_selector("#ending[open]")
    monkeypatch.setattr(settings(), "session_idle_s", 3600)
    page.wait_for_selector("#ending[open]", state="hidden")
    assert not page.is_visible("#again")


def test_an_end_that_nothing_puts_off_is_said_once(
    visit: Callable[..., object], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the page is read on until then."""
    uid = ward.admit(db, 1)
    monkeypatch.setattr(settings(), "session_absolute_s", 100)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    page.wait_for_selector("#ending[open]")
    page.click("#stay")
    page.keyboard.press("End")  # further frames are asked for, and answered
    page.wait_for_timeout(1500)
    assert not page.is_visible("#ending")
