"""A reviewer at work: by keyboard alone, live, and with everything that can go wrong meanwhile."""

from collections.abc import Callable
from time import monotonic

import pytest
from sqlalchemy import select, update

from service.db import peers, reevaluations, rulebooks, users
from service.db.session import Database
from service.db.tables import Credential, Decision, Role, Severity, Study, now
from tests.review import ward

playwright_api = pytest.importorskip("playwright.sync_api")

BOOK = """name = "small"
version = "1"
title = "One rule"
[[requirement]]
id = "marker"
title = "Body marker"
severity = "major"
applies_to = { exam = "breast" }
expect = { annotation = "body_marker" }
"""
CANARY = '"><img src=x onerror=alert(1)>'


def awake(page) -> None:
    """Decision keys sleep until the first frame is painted and 0.4 s have passed."""
    page.wait_for_selector("#decide[data-awake]")


def until(page, expression: str, within_s: float = 15.0) -> None:
    """Wait for an expression to be true; asked through the debugger, as the page's policy refuses evaluated strings."""
    deadline = monotonic() + within_s
    while not true_now(page, expression):
        assert monotonic() < deadline, expression
        page.wait_for_timeout(50)


def true_now(page, expression: str) -> bool:
    """Whether it is true; a page that is just being left has no answer."""
    try:
        return bool(page.evaluate(expression))
    except playwright_api.Error as error:
        if "navigat" not in str(error):
            raise
        return False


def decisions(db: Database) -> list[Decision | None]:
    with db.read() as session:
        return list(session.scalars(select(Study.decision).order_by(Study.id)))


def test_ten_flagged_studies_are_cleared_by_keyboard_alone(visit: Callable[..., object], db: Database) -> None:
    uids = [ward.admit(db, number) for number in range(1, 11)]
    page = visit()
    page.goto("/worklist")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    keys = [["c"], ["o", "3"], ["r", "1"]]
    for number in range(10):
        page.wait_for_url("**/studies/**")
        awake(page)
        before = page.url
        for key in keys[number % 3]:
            page.keyboard.press(key)
        if number < 9:
            page.wait_for_url(lambda url, before=before: url.split("?")[0] != before.split("?")[0])
    page.wait_for_selector(".standing")
    made = decisions(db)
    assert len(made) == len(uids) and None not in made
    assert {made.count(each) for each in (Decision.CONFIRM, Decision.OVERRIDE, Decision.RETAKE)} == {4, 3}


def test_undo_by_key(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    page.goto(f"/studies/{uid}")
    awake(page)
    page.keyboard.press("c")
    page.wait_for_selector(".standing")
    awake(page)
    page.keyboard.press("u")
    page.wait_for_selector(".standing", state="detached")
    assert decisions(db) == [None]


def test_what_nobody_overrides_without_a_note(visit: Callable[..., object], db: Database) -> None:
    """The form says it beforehand, the key leads into the note, and with one it goes on as ever, to a second reader."""
    ward.admit(db, 1, rulebook=ward.strict(db, "critical"), severity=Severity.CRITICAL)
    usual = ward.admit(db, 2)
    page, other = visit(), visit(name="other")
    page.goto("/worklist")
    for key in ("j", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url("**/studies/**")  # the older one, which is overridden with one key
    awake(page)
    for key in ("o", "1"):
        page.keyboard.press(key)
    page.wait_for_url(lambda url: usual not in url.split("?")[0])
    awake(page)
    page.keyboard.press("o")
    assert page.is_visible("#needs-note") and "critical" in page.inner_text("#needs-note")
    page.keyboard.press("1")
    until(page, "document.activeElement.id === 'note'")
    assert "Overriding this needs a note" in page.inner_text("#status")
    assert not page.is_visible("#needs-note"), "the reasons hide the note no longer"
    page.keyboard.type("in the upper left corner")
    for key in ("Escape", "o", "1"):
        page.keyboard.press(key)
    page.wait_for_selector("#second-read")
    assert page.inner_text("#second-read") == "A second reader is awaited."
    assert decisions(db) == [Decision.OVERRIDE, Decision.OVERRIDE]
    other.goto("/worklist")
    other.click("#second-reads")
    other.click("tbody a")
    assert "upper left" not in other.content()


def test_the_list_says_what_needs_a_note(visit: Callable[..., object], db: Database) -> None:
    strict, usual = ward.admit(db, 1, rulebook=ward.strict(db)), ward.admit(db, 2)
    page = visit()
    for uid in (strict, usual):
        page.goto(f"/studies/{uid}")
    page.goto("/worklist")
    for number, keys in enumerate((["j", "o"], ["Escape", "Escape", "j", "j", "o"])):
        for key in keys:
            page.keyboard.press(key)
        assert page.is_visible(".deeds .needs-note") is bool(number)
    page.keyboard.press("3")
    until(page, "document.querySelector('#alert').textContent.includes('Open it')")
    assert decisions(db) == [None, None]


def test_keys_are_letters_in_a_note(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    page.goto(f"/studies/{uid}")
    awake(page)
    page.keyboard.press("n")
    page.keyboard.type("cor1 u")
    until(page, "document.querySelector('#saved').textContent.startsWith('saved')")
    page.reload()
    assert page.input_value("#note") == "cor1 u" and decisions(db) == [None]


def test_single_keys_can_be_switched_off(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    page.goto(f"/studies/{uid}")
    page.keyboard.press("?")
    page.click("#single-keys button")
    page.wait_for_selector("body[data-single-keys=off]")
    awake(page)
    page.keyboard.press("c")
    page.wait_for_timeout(300)
    assert decisions(db) == [None]


def test_rows_are_chosen_and_decided_from_the_list(visit: Callable[..., object], db: Database) -> None:
    uids = [ward.admit(db, number) for number in range(1, 6)]
    page = visit()
    for uid in uids[:4]:
        page.goto(f"/studies/{uid}")
    page.goto("/worklist")
    for key in ("j", "j", "x", "j", "j", "X"):
        page.keyboard.press(key)
    assert page.inner_text("#chosen-count") == "3 chosen" and page.locator("tr.chosen").count() == 3
    page.keyboard.press("o")
    page.keyboard.press("3")
    until(page, "document.querySelectorAll('#rows tr').length === 2")
    assert page.inner_text("#done-words") == "3 studies overridden."
    page.keyboard.press("u")
    until(page, "document.querySelectorAll('#rows tr').length === 5")
    assert decisions(db) == [None] * 5
    # The hand is where it was: on the first of those that stand in the list again.
    until(page, f"document.activeElement.closest('tr')?.dataset.uid === '{uids[3]}'")


def test_a_row_that_was_never_opened_is_not_decided(visit: Callable[..., object], db: Database) -> None:
    ward.admit(db, 1)
    page = visit()
    page.goto("/worklist")
    page.keyboard.press("j")
    page.keyboard.press("c")
    until(
        page,
        "document.querySelector('#alert').textContent.includes('have not looked at it yet. Open it once')",
    )
    assert page.locator("#rows tr").count() == 1 and decisions(db) == [None]


def test_columns_are_left_out(visit: Callable[..., object], db: Database) -> None:
    ward.admit(db, 1)
    page = visit()
    page.goto("/worklist")
    page.click(".column-choice summary")
    page.uncheck(".column-choice input[value=station]")
    page.click(".column-choice button")
    page.wait_for_selector("table.without-station")
    assert page.is_hidden("th.c-station") and page.is_visible("th.c-exam")


def test_a_flag_appears_without_reload_and_moves_no_row(visit: Callable[..., object], db: Database) -> None:
    ward.admit(db, 5)
    page = visit()
    page.goto("/worklist")
    page.wait_for_selector(".live.on")
    page.keyboard.press("j")
    held = page.evaluate("document.activeElement.id")
    ward.admit(db, 1)
    page.wait_for_selector("#new-studies:not([hidden])")
    assert "1 new study" in page.inner_text("#new-studies")
    until(page, "document.querySelector('#count-flagged').textContent === '2'")
    assert page.locator("#rows tr").count() == 1 and page.evaluate("document.activeElement.id") == held
    page.keyboard.press(".")
    page.wait_for_selector("#rows tr:nth-child(2)")  # the list is fetched anew: a page in between holds no script


def test_a_row_decided_elsewhere_stays_and_says_so(visit: Callable[..., object], db: Database) -> None:
    ward.admit(db, 1)
    page = visit()
    page.goto("/worklist")
    page.wait_for_selector(".live.on")
    with db.begin() as session:
        session.execute(update(Study).values(decision=Decision.CONFIRM, version=2))
    page.wait_for_selector("#rows tr.stale")
    assert "Confirmed" in page.inner_text("#rows tr")


def test_a_note_survives_an_ended_session(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    page.goto(f"/studies/{uid}")
    awake(page)
    with db.begin() as session:
        session.execute(update(Credential).values(revoked_at=now()))
    page.fill("#note", "typed too late")
    until(page, "document.querySelector('#alert').textContent.includes('kept in this browser')")
    again = visit()
    page.context.add_cookies(again.context.cookies())
    page.reload()
    until(page, "document.querySelector('#note').value === 'typed too late'")


@pytest.mark.parametrize("path", ["/worklist?tab=all", "/studies/{uid}", "/flow", "/reports?group_by=operator"])
def test_no_name_becomes_markup(visit: Callable[..., object], db: Database, path: str) -> None:
    uid = ward.admit(db, 1, name=f"{CANARY}^X", station=CANARY, operator=CANARY, description=CANARY)
    page = visit()
    page.goto(path.replace("{uid}", uid))
    page.wait_for_timeout(500)
    assert page.locator("img[src=x]").count() == 0


def test_the_viewer_draws_the_frame_its_marks_and_every_view(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1, pictures=[ward.rgb(), ward.cine()])
    page = visit()
    page.goto(f"/studies/{uid}")
    lit = """id => { const c = document.getElementById(id); const d = c.getContext('2d')
        .getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0;
        return n; }"""
    until(page, f"({lit})('picture') > 1000")
    assert page.evaluate(lit, "overlay") > 200
    assert "Caliper" in page.inner_text("#legend")
    page.keyboard.press("m")
    until(page, f"({lit})('overlay') === 0")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#counter').value === '1 / 30'")
    page.keyboard.press("End")
    until(page, "document.querySelector('#counter').value === '30 / 30'")
    page.keyboard.press("+")
    until(page, "parseInt(document.querySelector('#zoom-out').value) > 200")


def test_pages_work_without_scripts(chromium, address: str, db: Database) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        users.create_user(session, "ann", users.Role.ADMIN, "correct horse battery")
    page = chromium.new_context(java_script_enabled=False, base_url=address).new_page()
    page.goto("/worklist")
    page.fill("#name", "ann")
    page.fill("#password", "correct horse battery")
    page.click("button.primary")
    page.click(f"a[href^='/studies/{uid}']")
    page.click("#confirm")
    assert decisions(db) == [Decision.CONFIRM]
    page.context.close()


def test_a_peer_is_entered_and_changed_with_its_options(visit: Callable[..., object], db: Database) -> None:
    """Two fields do; the options are a press away, by keyboard too, and open where one of them is not as usual."""
    page = visit(Role.ADMIN)
    page.goto("/peers")
    assert page.is_hidden("#tls")
    page.fill("#ae_title", "US07")
    page.fill("#address", "10.1.4.13")
    page.focus(".options summary")
    page.keyboard.press("Enter")
    page.select_option("#tls", "required")
    page.select_option("#character_set", label="Chinese – GB18030")
    page.fill("#priority", "-5")
    page.check("input[name=closes]")
    page.click("#form .primary")
    page.wait_for_selector(".differs")
    assert "must use TLS · character set GB18030 (Chinese) · priority -5" in " · ".join(
        page.locator(".differs li").all_inner_texts()
    )
    page.click("text=Edit US07")
    page.wait_for_selector("text=Change US07 at 10.1.4.13")
    assert page.input_value("#priority") == "-5" and page.is_visible("#tls")
    page.fill("#port", "0")
    page.click("text=Save")
    page.wait_for_selector(".error-summary")
    page.click(".error-summary a")
    assert page.evaluate("document.activeElement.id") == "port"
    page.fill("#port", "4242")
    page.keyboard.press("Enter")
    page.wait_for_url("**/peers")
    with db.read() as session:
        [peer] = peers.let_in(session)
        assert (peer.port, peer.tls, peer.character_set, peer.priority) == (4242, "required", "GB18030", -5)


def test_the_focus_stays_on_what_replaces_itself(visit: Callable[..., object], db: Database) -> None:
    """A peer is asked again and again by keyboard; a what-if is cancelled while it counts."""
    ward.admit(db, 1)
    with db.begin() as session:
        number = peers.add(session, "US07", "127.0.0.1", 1, "Room 4", "admin").id
        book = rulebooks.save(session, BOOK, "admin").id
        asked = reevaluations.ask(session, book, reevaluations.Range(), "admin", records=False).id
    page = visit(Role.ADMIN)
    page.goto("/peers")
    page.focus(f"#echo-button-{number}")
    for _ in range(2):
        with page.expect_response(f"**/peers/{number}/echo"):
            page.keyboard.press("Enter")
        until(page, f"document.querySelector('#echo-{number} .chip') !== null")
        page.wait_for_timeout(200)
        assert page.evaluate("document.activeElement.id") == f"echo-button-{number}"
    page.goto(f"/rulebooks?version={book}&ask={asked}")
    page.focus("#what-if-cancel")
    for _ in range(2):
        with page.expect_response(f"**/what-if/{asked}"):
            pass
        page.wait_for_timeout(200)
        assert page.evaluate("document.activeElement.id") == "what-if-cancel"


def test_a_cancel_counts_however_long_the_press(visit: Callable[..., object], db: Database) -> None:
    """What it stops is asked for every second: a press may begin before the answer and end after it."""
    ward.admit(db, 1)
    with db.begin() as session:
        book = rulebooks.save(session, BOOK, "admin").id
        asked = reevaluations.ask(session, book, reevaluations.Range(), "admin", records=False).id
    page = visit(Role.ADMIN)
    page.goto(f"/rulebooks?version={book}&ask={asked}")
    page.hover("#what-if-cancel")
    with page.expect_response(f"**/what-if/{asked}"):
        page.mouse.down()
    page.wait_for_timeout(300)
    page.mouse.up()
    page.wait_for_selector("text=Cancelled before the first study.")
    with db.read() as session:
        assert reevaluations.get(session, asked).cancelled_at
    until(page, "document.querySelector('#what-if-cancel') === null")
    assert "progress" not in page.inner_html("#what-if-now")


def test_the_note_says_which_of_its_keys_decides(visit: Callable[..., object], db: Database) -> None:
    """c, o and r are letters there: what sends is told, and waits like every decision until the frame is seen."""
    uid = ward.admit(db, 1)
    page = visit()
    page.goto(f"/studies/{uid}")
    assert page.is_visible("#confirm kbd.away") and not page.is_visible("#confirm kbd.typing")
    awake(page)
    page.keyboard.press("n")
    assert page.is_visible("#confirm kbd.typing") and not page.is_visible("#confirm kbd.away")
    page.keyboard.type("seen on the still beside it")
    page.evaluate("document.querySelector('#decide').removeAttribute('data-awake')")
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(300)
    assert decisions(db) == [None]
    page.evaluate("document.querySelector('#decide').dataset.awake = 'true'")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#last-one")
    assert decisions(db) == [Decision.CONFIRM]
    page.keyboard.press("Escape")
    page.wait_for_url("**/worklist**")
    assert page.is_visible("text=No flagged studies")
