"""The worklist under a reader's hands: what leads on from it, what is chosen in it, and what it says of the world."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from service.db import reviews, studies, users, worklist
from service.db.session import Database
from service.db.tables import Decision, Role, Study
from service.errors import DatabaseAway
from service.review import changes
from service.review import worklist as pages
from tests.browser.test_work import awake, decisions, until
from tests.review import ward

playwright_api = pytest.importorskip("playwright.sync_api")


def by_another(db: Database, uid: str, name: str = "bob") -> None:
    """Somebody else confirms the study."""
    with db.begin() as session:
        user = users.find_user(session, name) or users.create_user(session, name, Role.REVIEWER)
        study = studies.brief(session, uid)
        reviews.decide(session, study, user, Decision.CONFIRM, "", "", study.version)
        studies.touch(session, study)


def test_whatever_leads_on_keeps_the_filter_that_was_typed(visit: Callable[..., object], db: Database) -> None:
    ward.admit(db, 1, name="DOE^Jane")
    ward.admit(db, 2, name="ROE^Ann")
    ward.admit(db, 3, name="ROE^Bea", verdict=None)
    page = visit()
    page.goto("/worklist")
    page.fill("#q", "roe")
    until(page, "document.querySelectorAll('#rows tr').length === 1")
    until(page, "document.querySelector('#count-all').textContent === '2'")
    until(page, "document.title.startsWith('1 flagged')")
    page.click(".saved-filters summary")
    page.fill("#keep-filter [name=name]", "all of Roe")
    page.click("#keep-filter button")
    page.wait_for_url("**/worklist?*")
    assert page.input_value("#q") == "roe", "what is kept is what was seen"
    page.goto("/worklist")
    page.fill("#q", "roe")
    until(page, "document.querySelectorAll('#rows tr').length === 1")
    page.keyboard.press("Escape")
    page.keyboard.press("5")
    page.wait_for_url("**tab=all**")
    assert page.input_value("#q") == "roe" and page.locator("#rows tr").count() == 2


def test_a_list_that_cannot_be_narrowed_stays_and_says_so(
    visit: Callable[..., object], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.admit(db, 1)
    page = visit()
    page.goto("/worklist")
    whole = worklist.page

    def away(*_: object) -> None:
        raise DatabaseAway("The database is away.")

    monkeypatch.setattr(pages.worklist, "page", away)
    page.fill("#q", "nobody")
    until(page, "document.querySelector('#alert').textContent.includes('could not be refreshed')")
    assert page.locator("#rows tr").count() == 1
    monkeypatch.setattr(pages.worklist, "page", whole)
    page.fill("#q", "doe")
    until(page, "document.querySelector('#alert').textContent === ''")
    assert page.locator("#rows tr").count() == 1


def test_what_was_searched_without_a_network_is_found_when_it_is_back(
    visit: Callable[..., object], db: Database
) -> None:
    """Else the controls say what the list does not show."""
    ward.admit(db, 1, name="DOE^Jane")
    ward.admit(db, 2, name="ROE^Ann")
    page = visit()
    page.goto("/worklist")
    page.wait_for_selector(".live.on")
    page.context.set_offline(True)
    until(page, "document.querySelector('#alert').textContent.includes('No network since')")
    page.fill("#q", "roe")
    until(page, "document.querySelector('#alert').textContent.includes('could not be refreshed')")
    assert page.locator("#rows tr").count() == 2
    page.context.set_offline(False)
    until(page, "document.querySelectorAll('#rows tr').length === 1")
    assert page.input_value("#q") == "roe" and "q=roe" in page.url
    until(page, "document.querySelector('#alert').textContent === ''")
    page.wait_for_selector(".live.on")


def test_a_flow_that_could_not_be_asked_goes_on(
    visit: Callable[..., object], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    page.goto("/flow")
    away = '<div class="error-summary" role="alert"><p><strong>The database is away.</strong></p></div>'
    page.route("**/flow", lambda route: route.fulfill(status=503, content_type="text/html", body=away))
    until(page, "document.querySelector('#alert').textContent.includes('The database is away.')")
    assert page.is_visible("#now .stages")
    page.unroute("**/flow")
    until(page, "document.querySelector('#alert').textContent === ''")
    assert page.is_visible("#now .stages")


def test_a_row_decided_by_another_since_it_was_chosen_is_not_decided_again(
    visit: Callable[..., object], db: Database
) -> None:
    uids = [ward.admit(db, number) for number in (1, 2)]
    page = visit(name="ann")
    for uid in uids:
        page.goto(f"/studies/{uid}")
    page.goto("/worklist")
    page.wait_for_selector(".live.on")
    for key in ("j", "x", "j", "x"):
        page.keyboard.press(key)
    by_another(db, uids[0])
    page.wait_for_selector("#rows tr.stale")
    page.keyboard.press("o")
    page.keyboard.press("3")
    until(page, "document.querySelector('#alert').textContent.includes('changed while you were reading')")
    assert decisions(db) == [Decision.CONFIRM, Decision.OVERRIDE]
    page.click("#choose-none")
    assert page.is_visible("#undo-deeds"), "what was decided can still be undone"


def test_reasons_keep_their_digits_however_long_they_are_read(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    page.goto(f"/studies/{uid}")
    awake(page)
    page.keyboard.press("r")
    page.wait_for_timeout(1800)
    page.keyboard.press("1")
    until(page, "document.querySelector('.standing')?.textContent.includes('Retake asked')")
    assert decisions(db) == [Decision.RETAKE]


def test_a_study_in_the_hands_of_one_whose_name_holds_mine(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        joann = users.create_user(session, "joann", Role.REVIEWER)
        reviews.hold(session, studies.brief(session, uid), joann)
    page = visit(name="ann")
    page.goto("/worklist")
    page.keyboard.press("j")
    page.keyboard.press("y")
    until(page, "document.querySelector('#status').textContent.includes('joann holds this study')")


def test_much_that_changed_at_once_is_offered_anew(
    visit: Callable[..., object], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_AT_ONCE", 1)
    for number in (1, 2, 3):
        ward.admit(db, number)
    page = visit()
    page.goto("/worklist")
    page.wait_for_selector(".live.on")
    with db.begin() as session:
        session.execute(update(Study).values(decision=Decision.CONFIRM, version=2))
    page.wait_for_selector("#new-studies:not([hidden])")
    assert "Much has changed" in page.inner_text("#new-studies")
    until(page, "document.title.startsWith('0 flagged')")
