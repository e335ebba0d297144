"""What goes wrong while somebody reads: each says what happened and what to do, and nothing typed is lost.

Each leaves a picture of how it looks in ``artefacts/browser``.
"""

from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import delete, select, update

from service.archive.store import archive
from service.db import audit, double_reads, studies, switches, users
from service.db.session import Database
from service.db.tables import (
    Analysis,
    Annotation,
    Base,
    Credential,
    Decision,
    Draft,
    Finding,
    Frame,
    Instance,
    Reading,
    Role,
    Study,
    VerdictRecord,
    now,
)
from service.review import events, watch
from tests.browser.test_work import awake, decisions, until
from tests.review import ward

PASSWORD = "correct horse battery"
PICTURES = Path(__file__).resolve().parents[2] / "artefacts/browser"


def picture(page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def remove(db: Database, uid: str, by: str) -> None:
    """Every row of the study, as a retention rule would remove it, with its trace in the audit trail."""
    with db.begin() as session:
        study = select(Study.id).where(Study.study_instance_uid == uid).scalar_subquery()
        analyses = select(Analysis.id).join(Instance).where(Instance.study_id == study)
        frames = select(Frame.id).where(Frame.analysis_id.in_(analyses))
        verdicts = select(VerdictRecord.id).where(VerdictRecord.study_id == study)
        session.execute(delete(Finding).where(Finding.verdict_id.in_(verdicts)))
        session.execute(delete(Annotation).where(Annotation.frame_id.in_(frames)))
        session.execute(delete(Frame).where(Frame.analysis_id.in_(analyses)))
        session.execute(delete(Analysis).where(Analysis.id.in_(analyses)))
        for table in reversed(Base.metadata.sorted_tables):
            if "study_id" in table.c:
                session.execute(delete(table).where(table.c.study_id == study))
        session.execute(delete(Study).where(Study.study_instance_uid == uid))
        audit.record(session, by, "study.remove", uid)


def test_somebody_else_decides_meanwhile(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page, other = visit(name="ann"), visit(name="bob")
    page.goto(f"/studies/{uid}")
    page.fill("#note", "Seen on frame 2")
    other.goto(f"/studies/{uid}")
    awake(other)
    other.keyboard.press("c")
    until(page, "document.querySelector('#outcome').textContent.includes('bob confirmed this at')")
    picture(page, "news")
    page.locator("#decide #confirm").focus()
    page.keyboard.press("c")
    until(page, "document.querySelector('#problem')?.textContent.includes('bob confirmed this at')")
    assert "Nothing of yours was saved yet" in page.inner_text("#problem")
    assert page.input_value("#note") == "Seen on frame 2"
    picture(page, "conflict")
    page.click("[data-again]")
    page.wait_for_selector(".standing")
    with db.read() as session:
        study = studies.brief(session, uid)
        assert study.decision is Decision.CONFIRM and study.version == 3


def test_discarding_mine_after_a_conflict(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    awake(page)
    with db.begin() as session:
        session.execute(update(Study).values(version=7))
    page.fill("#note", "mine")
    page.click("#confirm")
    page.click("[data-discard]")
    until(page, "!document.querySelector('#problem') && document.querySelector('#note').value === ''")
    assert decisions(db) == [None]


def test_the_study_is_removed_while_it_is_open(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    awake(page)
    page.fill("#note", "half a thought")
    remove(db, uid, by="boss")
    page.click("#confirm")
    until(page, "document.querySelector('#removed') !== null")
    text = page.inner_text("#removed")
    assert "This study was removed" in text and "Your note is kept here" in text and "Back to the worklist" in text
    assert page.is_disabled("#confirm") and page.input_value("#note") == "half a thought"
    picture(page, "removed")


def test_an_open_page_hears_who_removed_its_study(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    page.wait_for_selector(".live.on")
    remove(db, uid, by="boss")
    page.reload()
    assert "There is no study of that UID" in page.inner_text("main")
    picture(page, "gone")


def test_a_session_that_ends_mid_review_costs_nothing(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        users.create_user(session, "ann", Role.REVIEWER, PASSWORD)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    awake(page)
    with db.begin() as session:
        session.execute(update(Credential).values(revoked_at=now()))
    page.fill("#note", "typed too late")
    page.click("#confirm")
    page.wait_for_selector("#again[open]")
    picture(page, "signed-out")
    page.fill("#again-password", "wrong")
    page.press("#again-password", "Enter")
    until(page, "document.querySelector('#again-problem').textContent.includes('not right')")
    page.fill("#again-password", PASSWORD)
    page.press("#again-password", "Enter")
    page.wait_for_selector(".standing")  # the decision was sent again by itself
    assert decisions(db) == [Decision.CONFIRM]
    page.click(".history summary")
    assert "typed too late" in page.inner_text(".history")


def test_somebody_else_who_signs_in_there_gets_a_page_of_their_own(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    with db.begin() as session:
        users.create_user(session, "bob", Role.REVIEWER, PASSWORD)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    awake(page)
    with db.begin() as session:
        session.execute(update(Credential).values(revoked_at=now()))
    page.fill("#note", "ann's own words")
    page.wait_for_selector("#again[open]")
    page.fill("#again-name", "bob")
    page.fill("#again-password", PASSWORD)
    page.press("#again-password", "Enter")
    page.wait_for_url("**/worklist")
    page.goto(f"/studies/{uid}")
    assert page.input_value("#note") == ""


def drafted(db: Database) -> str:
    """The note that the server keeps."""
    with db.read() as session:
        return session.scalars(select(Draft.note)).one()


def test_two_tabs_keep_both_notes(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    one = visit(name="ann")
    one.goto(f"/studies/{uid}")
    two = one.context.new_page()
    two.goto(f"/studies/{uid}")
    one.fill("#note", "from the first tab")
    two.fill("#note", "from the second tab")
    until(two, "document.querySelector('#note').value.includes('from the first tab')")
    until(two, "document.querySelector('#saved').textContent.startsWith('saved')")
    deadline = monotonic() + 15
    while not {"from the first tab", "from the second tab"} <= set(drafted(db).splitlines()):
        assert monotonic() < deadline, drafted(db)
        two.wait_for_timeout(50)
    picture(two, "two-tabs")


def test_a_decision_in_one_tab_is_told_in_the_other(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    one = visit(name="ann")
    one.goto(f"/studies/{uid}")
    two = one.context.new_page()
    two.goto(f"/studies/{uid}")
    awake(two)
    two.keyboard.press("c")
    one.bring_to_front()
    until(one, "document.querySelector('#outcome').textContent.includes('You confirmed this at')")


def test_no_network_for_a_while(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1, pictures=[ward.cine()])
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    awake(page)
    page.context.set_offline(True)
    until(page, "document.querySelector('#alert').textContent.includes('No network since')")
    page.keyboard.press("c")
    until(page, "document.querySelector('#alert').textContent.includes('decision was not sent')")
    page.fill("#note", "typed without a network")
    until(page, "document.querySelector('#alert').textContent.includes('kept in this browser')")
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    until(page, "document.querySelector('#stage-message').textContent.includes('server cannot be reached')")
    picture(page, "no-network")
    assert decisions(db) == [None]
    page.context.set_offline(False)
    until(page, "document.querySelector('#saved').textContent.startsWith('saved')")
    until(page, "document.querySelector('#stage-message').hidden")
    page.keyboard.press("c")
    page.wait_for_selector(".standing")
    assert decisions(db) == [Decision.CONFIRM]


def test_a_proxy_whose_server_is_away_does_not_speak_for_it(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    page = visit()
    page.goto(f"/studies/{uid}")
    awake(page)
    nginx = (
        "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center>nginx</body>"
    )
    page.route("**/reviews", lambda route: route.fulfill(status=502, content_type="text/html", body=nginx))
    page.keyboard.press("c")
    until(page, "document.querySelector('#alert').textContent.startsWith('The server could not answer (502).')")
    assert "nginx" not in page.inner_text("#alert") and "Your note is kept." in page.inner_text("#alert")
    page.unroute("**/reviews")
    page.keyboard.press("c")
    page.wait_for_selector("#last-one")
    assert decisions(db) == [Decision.CONFIRM]


def test_no_network_for_a_minute(visit: Callable[..., object], db: Database) -> None:
    """The worklist and a study lie open for a whole minute without a network, and hear afterwards what they missed."""
    uid = ward.admit(db, 1)
    rows = visit(name="ann")
    rows.goto("/worklist")
    rows.wait_for_selector(".live.on")
    page = rows.context.new_page()
    page.goto(f"/studies/{uid}")
    awake(page)
    page.wait_for_selector(".live.on")
    rows.context.set_offline(True)
    began = monotonic()
    for each in (rows, page):
        until(each, "document.querySelector('#alert').textContent.includes('No network since')")
        assert "not live since" in each.inner_text("#live")
    since = [each.inner_text("#live") for each in (rows, page)]
    ward.admit(db, 2)
    other = visit(name="bob")
    other.goto(f"/studies/{uid}")
    awake(other)
    other.keyboard.press("c")
    other.wait_for_selector(".standing")
    page.wait_for_timeout(1000 * (60 - (monotonic() - began)))
    for each, told in zip((rows, page), since, strict=True):
        assert "No network since" in each.inner_text("#alert") and each.inner_text("#live") == told
    assert rows.locator("#rows tr").count() == 1 and rows.is_hidden("#new-studies")
    picture(rows, "worklist-no-network")
    rows.context.set_offline(False)
    rows.wait_for_selector("#rows tr.stale")
    assert "Confirmed" in rows.inner_text("#rows tr")
    until(rows, "document.querySelector('#new-studies').textContent.includes('1 new study')")
    until(page, "document.querySelector('#outcome').textContent.includes('bob confirmed this at')")
    for each in (rows, page):
        each.wait_for_selector(".live.on")
        assert each.inner_text("#alert") == ""


def test_a_frame_that_cannot_be_decoded(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1, pictures=[ward.wide(), ward.cine()])
    with db.begin() as session:
        broken = session.scalars(select(Instance).where(Instance.sop_instance_uid == f"{uid}.1.1")).one()
        stored = archive().get(broken.archive_key)
        archive().path(broken.archive_key).chmod(0o644)
        archive().path(broken.archive_key).write_bytes(stored[:2000] + bytes(len(stored) - 2000))
    page = visit()
    page.goto(f"/studies/{uid}")
    until(page, "document.querySelector('#stage-message').textContent.includes('could not be shown')")
    assert "The verdict used 1 of 1 frames" in page.inner_text("#stage-message")
    picture(page, "broken-frame")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('#stage-message').hidden")
    assert page.is_visible("#confirm")


def test_a_frame_without_marks_and_a_mask_that_is_lost(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1, pictures=[ward.cine(), ward.rgb()])
    with db.read() as session:
        lost = session.scalars(select(Frame.mask_key).where(Frame.mask_key != "")).one()
    archive().path(lost).unlink()
    page = visit()
    page.goto(f"/studies/{uid}")
    until(page, "document.querySelector('#legend').textContent.includes('No annotation found on this frame')")
    picture(page, "no-mask")
    page.click(".film[data-image='1']")
    until(page, "document.querySelector('#legend').textContent.includes('Caliper')")
    until(page, "!document.querySelector('#stage-message').hidden")
    picture(page, "lost-mask")


def test_a_study_held_by_somebody_else(visit: Callable[..., object], db: Database) -> None:
    uid = ward.admit(db, 1)
    one, two = visit(name="ann"), visit(name="bob")
    one.goto(f"/studies/{uid}")
    one.keyboard.press("y")
    until(one, "document.querySelector('.hold').textContent.includes('You hold this')")
    two.goto(f"/studies/{uid}")
    assert "ann holds this since" in two.inner_text(".hold") and two.is_visible("button[name=take_over]")
    picture(two, "held")


def test_a_page_hears_in_whose_hands_its_study_is(visit, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.3)
    uid = ward.admit(db, 1)
    one, two = visit(name="ann"), visit(name="bob")
    one.goto(f"/studies/{uid}")
    one.wait_for_selector(".live.on")
    two.goto(f"/studies/{uid}")
    two.keyboard.press("y")
    until(one, "document.querySelector('#news')?.textContent.includes('bob holds this study now.')")
    one.locator("#news button").focus()
    one.wait_for_timeout(1000)
    assert one.evaluate("document.activeElement.textContent") == "Show it", "told again, it does not lose the focus"
    two.keyboard.press("y")
    until(one, "!document.querySelector('#news')")


def test_a_note_on_its_way_arrives_before_its_decision(visit: Callable[..., object], db: Database) -> None:
    """Else it would stand there afterwards as one that was not sent."""
    uid = ward.admit(db, 1)
    page = visit(name="ann")
    page.goto(f"/studies/{uid}")
    awake(page)
    on_its_way: list[object] = []
    page.route("**/draft", lambda route: on_its_way.append(route))
    page.fill("#note", "seen on frame 2")
    with page.expect_request("**/draft"):
        page.click("#confirm")  # the field is left, and its note is sent
    page.wait_for_timeout(500)
    assert decisions(db) == [None], "the decision waits for the note"
    for note in on_its_way:
        note.continue_()
    page.wait_for_selector(".standing")
    assert decisions(db) == [Decision.CONFIRM]
    with db.read() as session:
        assert list(session.scalars(select(Draft.note))) == []


def test_a_second_answer_waits_for_the_network(visit: Callable[..., object], db: Database) -> None:
    uids = [ward.admit(db, number) for number in (1, 2)]
    with db.begin() as session:
        for uid in uids:
            double_reads.draw(session, studies.brief(session, uid), 1.0)
    page = visit(name="ann")
    page.goto(f"/second-reads/{uids[0]}")
    page.wait_for_selector("#answer[data-awake]")
    page.fill("#answer-note", "no marker on the left")
    page.keyboard.press("Escape")
    page.context.set_offline(True)
    page.keyboard.press("o")
    until(page, "document.querySelector('#alert').textContent.includes('Your answer was not sent')")
    assert page.input_value("#answer-note") == "no marker on the left"
    page.context.set_offline(False)
    page.keyboard.press("o")
    page.wait_for_url(f"**/second-reads/{uids[1]}")
    page.keyboard.press("c")  # pressed once too often: the next study was not looked at yet
    page.wait_for_selector("#answer[data-awake]")
    assert page.url.endswith(uids[1])
    with db.read() as session:
        answered = [double_reads.of(session, studies.brief(session, uid)).first_answer for uid in uids]
    assert answered == [Reading.INCOMPLETE, None]


def test_a_pause_is_told_to_pages_that_are_open(visit, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (events, watch):
        monkeypatch.setattr(stream, "HEARTBEAT_S", 0.5)
    study = ward.admit(db, 1)
    for path in (f"/studies/{study}", "/worklist"):
        page = visit()
        page.goto(path)
        page.locator("#live.on").wait_for()
        with db.begin() as session:
            switches.turn_on(session, switches.PAUSED, "boss", "a new disk")
        page.locator("#banners p", has_text="by boss: a new disk").wait_for()
        with db.begin() as session:
            switches.turn_off(session, switches.PAUSED)
        page.locator("#banners p").wait_for(state="detached")
