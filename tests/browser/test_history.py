"""Back, forward and reload: what the address says is what is shown, and the page that comes back works."""

from collections.abc import Callable

import pytest

from service.db.session import Database
from tests.browser.test_work import decisions, until
from tests.review import ward

playwright_api = pytest.importorskip("playwright.sync_api")


def rows(count: int) -> str:
    return f"document.querySelectorAll('#rows tr').length === {count}"


def searched(visit: Callable[..., object], db: Database):
    """A worklist of three, of which two are found."""
    for number, name in enumerate(("DOE^Jane", "ROE^Ann", "ROE^Bea"), 1):
        ward.admit(db, number, name=name)
    page = visit()
    page.goto("/worklist")
    page.wait_for_selector(".live.on")
    page.fill("#q", "roe")
    until(page, rows(2))
    return page


def works(page) -> None:
    """It is live, and takes keys."""
    page.wait_for_selector(".live.on")
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert page.inner_text("#chosen-count") == "1 chosen"


def test_back_and_forward_through_what_was_searched(visit: Callable[..., object], db: Database) -> None:
    page = searched(visit, db)
    page.fill("#q", "roe bea")
    until(page, rows(1))
    page.go_back()
    until(page, rows(2))
    assert page.input_value("#q") == "roe"
    page.go_back()
    until(page, rows(3))
    assert page.input_value("#q") == ""
    page.go_forward()
    until(page, rows(2))
    assert page.input_value("#q") == "roe"
    works(page)
    ward.admit(db, 4, name="ROE^Cid")
    page.wait_for_selector("#new-studies:not([hidden])")


def test_back_from_a_study_to_what_was_searched(visit: Callable[..., object], db: Database) -> None:
    page = searched(visit, db)
    page.click("#rows .patient a")
    page.wait_for_selector("#decide[data-awake]")
    page.go_back()
    page.wait_for_selector(".live.on")
    until(page, rows(2))
    page.go_back()
    until(page, rows(3))
    assert page.input_value("#q") == ""
    works(page)
    assert decisions(db) == [None] * 3
