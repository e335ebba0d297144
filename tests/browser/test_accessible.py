"""axe-core finds nothing against WCAG 2.2 AA, on any page, in either theme."""

import re
from collections.abc import Callable

import pyotp
import pytest

from service.db import (
    checks,
    double_reads,
    heartbeats,
    peers,
    reevaluations,
    retention,
    rulebooks,
    selftests,
    studies,
    switches,
    users,
    verdicts,
)
from service.db.session import Database
from service.db.tables import AnalysisState, Condition, Delivery, DeliveryKind, DeliveryState, Role, Verdict
from tests.browser.test_work import BOOK, awake
from tests.review import ward
from tests.review.test_roles import ROUTES, STREAMS

PASSWORD = "correct horse battery"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def violations(page, axe: str) -> list[str]:
    # Through the debugger, as the page's own policy rightly refuses an injected script element.
    page.evaluate(axe)
    found = page.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", TAGS)
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"][:3]
    ]


POLICY = """name = "hospital"
[[rules]]
name = "everything"
keep_days = 1
"""


def fill(db: Database) -> str:
    held = ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder.", cure="Install one.")
    ward.admit(db, 2, Verdict.INDETERMINATE, pictures=[held])
    ward.admit(db, 3, Verdict.COMPLIANT)
    ward.admit(db, 4, None)
    uid = ward.admit(db, 1, pictures=[ward.rgb(), ward.cine(), held])
    with db.begin() as session:
        rulebooks.save(session, BOOK, "admin")
        rulebooks.save(session, BOOK.replace('version = "1"', 'version = "2"'), "admin")
        wrong = BOOK.replace('version = "1"', 'version = "3"').replace(" }\n", ', without = "body_marker" }\n')
        rulebooks.save(session, wrong.replace('breast", without = "body_marker"', 'breast"'), "admin")
        peers.add(session, "US07", "127.0.0.1", 104, "Room 4", "admin")
        options = {"tls": "required", "certificate": "us08.example", "character_set": "GB18030", "priority": -5}
        peers.add(session, "US08", "10.1.4.0/24", 104, "", "admin", **options, max_associations=2, reports="same")
        heartbeats.beat(session, "receive", {"suspended": "", "peers": ["US08@10.1.4.0/24"], "tls": "none"})
        peers.note(session, "US07", "127.0.0.1", peers.Tally(stored=3, refused=1, last_refusal="too many associations"))
        switches.turn_on(session, switches.PAUSED, "admin", "a new disk")
        retention.keep_draft(session, "hospital", "0" * 64, POLICY, "admin")
        study = studies.find(session, uid)
        retention.place_hold(session, study, "a lawsuit", "admin")
        checks.record(session, {study.instances[0].id: Condition.DAMAGED})
        test = selftests.begin(session, "admin", "1.2.3")
        test.steps = [
            {"name": "C-STORE", "seconds": 0.2, "ok": True, "told": "0x0000", "cure": ""},
            {"name": "archived", "seconds": 0.0, "ok": False, "told": "not there", "cure": "Look."},
        ]
        test.finished_at = test.begun_at
    with db.begin() as session:
        study = studies.brief(session, uid)
        double_reads.draw(session, study, 1.0)
        standing = verdicts.standing(session, study.id)
        for state, reason in ((DeliveryState.WAITING, "It does not answer."), (DeliveryState.DELIVERED, "")):
            sent = Delivery(
                study_id=study.id, verdict_id=standing.id, kind=DeliveryKind.REPORT, target="PACS@10.1.1.1:104"
            )
            sent.state, sent.reason = state, reason
            session.add(sent)
        reevaluations.ask(session, rulebooks.versions(session)[0].id, reevaluations.Range(), "admin", records=False)
    return uid


PAGES = [
    "/worklist",
    "/worklist?tab=all",
    "/worklist?tab=mine",
    "/studies/{uid}",
    "/second-reads",
    "/second-reads/{uid}",
    "/flow",
    "/reports?group_by=station",
    "/reports/studies?group_by=station&key=US-03",
    "/reports/mine",
    "/reports/mine/studies",
    "/rulebooks",
    "/rulebooks?version=2",
    "/rulebooks?version=2&ask=1",
    "/rulebooks/2/activate",
    "/rulebooks/3/activate",
    "/rulebooks/2/compare?with=1",
    "/models",
    "/models/sonomark/activate",
    "/peers",
    "/peers?edit=2",
    "/deliveries",
    "/archive",
    "/archive?policy=1",
    "/self-test",
    "/profile",
    "/profile/second-factor",
    "/users",
    "/users/admin",
    "/tokens",
    "/audit?verify=true",
    "/docs",
    "/studies/1.2.3",
]
# Looked at by tests of their own below, pieces of pages that are looked at, or no page at all.
ELSEWHERE = {
    "/first-run",
    "/sign-in",
    "/sign-in/once",
    "/what-if/{number}",  # a piece of /rulebooks
    "/second-reads/{study_instance_uid}",
    "/",
    "/accession/{accession_number:path}",
    "/sign-in/sso",
    "/sign-in/sso/back",
    "/session",
    "/studies/{study_instance_uid}/ahead",
    "/healthz",
    "/readyz",
    "/metrics",
    *(stream.removeprefix("GET ") for stream in STREAMS),
}


def test_every_page_is_looked_at() -> None:
    gets = [route.removeprefix("GET ") for route in ROUTES if route.startswith("GET ")]
    pages = {path for path in gets if not path.startswith(("/api/", "/dicomweb/"))} - ELSEWHERE
    looked_at = [path.split("?")[0] for path in PAGES]
    missed = [
        page for page in pages if not any(re.fullmatch(re.sub(r"{\w+}", "[^/]+", page), path) for path in looked_at)
    ]
    assert missed == []


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("path", PAGES)
def test_pages(visit: Callable[..., object], axe: str, db: Database, theme: str, path: str) -> None:
    uid = fill(db)
    page = visit(Role.ADMIN, theme=theme)
    with db.begin() as session:
        users.get_user(session, "admin").operator_name = "SONO^Grapher"
    page.goto(path.replace("{uid}", uid))
    page.wait_for_load_state("load")
    page.wait_for_timeout(300)
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)  # frames are read in the dark
    assert violations(page, axe) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_doors(chromium, address: str, axe: str, db: Database, theme: str) -> None:
    page = chromium.new_page(color_scheme=theme)
    page.goto(f"{address}/first-run")
    assert violations(page, axe) == []
    page.fill("#name", "x")
    page.fill("#code", "x")
    page.fill("#password", "correct horse battery")
    page.click("button")
    assert violations(page, axe) == []
    with db.begin() as session:
        link = users.make_one_time_sign_in(session, users.create_user(session, "ann", Role.ADMIN, PASSWORD))
    page.goto(f"{address}/sign-in")
    assert violations(page, axe) == []
    page.fill("#name", "ann")
    page.fill("#password", "wrong")
    page.press("#password", "Enter")
    page.wait_for_selector(".error-summary")
    assert violations(page, axe) == []
    page.goto(f"{address}/sign-in/once?token={link}")
    assert violations(page, axe) == []
    page.close()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_second_factor(chromium, address: str, axe: str, db: Database, theme: str) -> None:
    """Enrolled on its page, the recovery codes shown once, and asked for at the next sign-in."""
    with db.begin() as session:
        users.create_user(session, "ann", Role.ADMIN, PASSWORD)  # without an administrator, setting up comes first
    page = chromium.new_page(base_url=address, color_scheme=theme, reduced_motion="reduce")
    page.set_default_timeout(15_000)

    def sign_in() -> None:
        page.goto("/sign-in")
        page.fill("#name", "ann")
        page.fill("#password", PASSWORD)
        page.press("#password", "Enter")

    sign_in()
    page.wait_for_url("**/worklist**")
    page.goto("/profile/second-factor")
    secret = page.input_value("input[name=secret]")
    page.fill("#code", "000000" if pyotp.TOTP(secret).now() != "000000" else "111111")
    page.press("#code", "Enter")
    page.wait_for_selector(".error-summary")
    assert violations(page, axe) == [], "a wrong code while enrolling"
    page.fill("#code", pyotp.TOTP(secret).now())
    page.press("#code", "Enter")
    page.wait_for_selector(".recovery")
    assert violations(page, axe) == [], "recovery codes"
    spare = page.inner_text(".recovery li:first-child code")
    page.context.clear_cookies()
    sign_in()
    page.wait_for_selector("input[name=ticket]", state="attached")
    assert violations(page, axe) == [], "the code is asked for"
    page.fill("#code", "none of them")
    page.press("#code", "Enter")
    page.wait_for_selector(".error-summary")
    assert violations(page, axe) == [], "a wrong code"
    page.fill("#code", spare)
    page.press("#code", "Enter")
    page.wait_for_url("**/worklist**")
    page.context.close()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_an_overtaken_rule_book(visit: Callable[..., object], axe: str, db: Database, theme: str) -> None:
    with db.begin() as session:
        base = rulebooks.save(session, BOOK, "admin")
        second = BOOK.replace('version = "1"', 'version = "2"')
        rulebooks.save(session, second.replace("major", "minor"), "bob", based_on=base.sha256)
        number = base.id
    page = visit(Role.ADMIN, theme=theme)
    page.goto(f"/rulebooks?version={number}")
    page.fill("#toml", second.replace("Body marker", "Marker of the body"))
    page.click("text=Save as a draft")
    page.wait_for_selector(".three-columns")
    assert violations(page, axe) == []


def test_the_sheet_of_keys(visit: Callable[..., object], axe: str, db: Database) -> None:
    page = visit()
    page.goto(f"/studies/{fill(db)}")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    assert violations(page, axe) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_what_opens_on_the_study_page(visit: Callable[..., object], axe: str, db: Database, theme: str) -> None:
    uid = fill(db)
    page = visit(theme=theme)
    page.goto(f"/studies/{uid}")
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    awake(page)
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    assert violations(page, axe) == [], "a box is edited"
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    assert violations(page, axe) == [], "reasons are open"
    page.keyboard.press("Escape")
    for view in ("swipe", "heat", "three"):
        page.select_option("#view", view)
    assert violations(page, axe) == [], "three panes"
    page.evaluate("document.dispatchEvent(new Event('sonomark:signed-out'))")
    page.wait_for_selector("#again[open]")
    assert violations(page, axe) == [], "the session has ended"


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_an_override_that_needs_a_note(visit: Callable[..., object], axe: str, db: Database, theme: str) -> None:
    uid = ward.admit(db, 1, rulebook=ward.strict(db))
    page = visit(theme=theme)
    page.goto(f"/studies/{uid}")
    page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
    awake(page)
    page.keyboard.press("o")
    assert page.is_visible("#needs-note") and violations(page, axe) == []
    page.keyboard.press("1")
    assert violations(page, axe) == [], "the note is asked for"


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_peer_that_cannot_be_so(visit: Callable[..., object], axe: str, db: Database, theme: str) -> None:
    fill(db)
    page = visit(Role.ADMIN, theme=theme)
    page.goto("/peers?edit=2")
    page.fill("#certificate", ".example")
    page.click("#form .primary")
    page.wait_for_selector(".error-summary")
    assert violations(page, axe) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_saved_filters(visit: Callable[..., object], axe: str, db: Database, theme: str) -> None:
    fill(db)
    page = visit(theme=theme)
    page.goto("/worklist?tab=mine")
    page.click(".saved-filters summary")
    page.fill("#keep-filter input[name=name]", "My station")
    page.click("#keep-filter button")
    page.click(".saved-filters summary")
    page.wait_for_selector(".saved-filter .item")
    assert violations(page, axe) == []
