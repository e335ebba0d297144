"""The pages: what stands on them, and decisions made by their forms."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.compliance.outcome import Outcome
from service.db import audit, reviews, studies, verdicts
from service.db.session import Database
from service.db.tables import AnalysisState, Decision, Role, Study, Verdict, VerdictRecord
from service.review import words
from tests.review import ward

CANARY = '"><img src=x onerror=alert(1)>'


def decide(browser: TestClient, uid: str, choice: str, version: int = 1, **more: str):
    return browser.post(f"/studies/{uid}/reviews", data={"choice": choice, "version": version, **more})


def decision_of(db: Database, uid: str) -> Decision | None:
    with db.read() as session:
        return studies.brief(session, uid).decision


def test_the_worklist_says_who_and_what_is_missing(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1, name="doe^Jane^Q")
    page = reviewer.get("/worklist").text
    assert "DOE, Jane Q" in page and "P00001" in page and f"/studies/{uid}" in page
    assert "Flagged" in page and "Breast body marker" in page and "(1 fr)" in page


def test_controls_equal_the_address(reviewer: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    page = reviewer.get("/worklist?tab=all&station=US-03&q=doe&verdict=non_compliant&days=7&operator=SONO^Grapher").text
    assert "<option selected>US-03</option>" in page and 'value="doe"' in page
    assert '<option value="non_compliant" selected>' in page and '<option value="7" selected>' in page
    assert '<option value="SONO^Grapher" selected>' in page
    page = reviewer.get("/worklist?days=banana").text
    assert ">DOE, Jane</a>" in page and '<option value="" selected>Any date</option>' in page


def test_what_the_controls_do_not_offer_still_shows_in_them(reviewer: TestClient, db: Database) -> None:
    """Of a link from a report, of a filter that was saved long ago: a list is never narrowed unseen."""
    ward.admit(db, 1)
    page = reviewer.get("/worklist?tab=all&station=US-99&operator=GONE^Long&missing=old-rule").text
    assert '<option value="US-99" selected>US-99</option>' in page
    assert '<option value="GONE^Long" selected>GONE, Long</option>' in page
    assert '<option value="old-rule" selected>Old rule</option>' in page
    for address in ("from=2020-01-01&to=2020-02-29", "days=2020-01-01..2020-02-29"):
        page = reviewer.get(f"/worklist?tab=all&{address}").text
        assert '<option value="2020-01-01..2020-02-29" selected>2020-01-01 to 2020-02-29</option>' in page, address
        assert "No study fits these filters" in page
    assert ">Since 2020-01-01</option>" in reviewer.get("/worklist?tab=all&days=2020-01-01..").text
    assert ">DOE, Jane</a>" in reviewer.get("/worklist?tab=all&days=2020-01-01..").text
    assert '<option value="7" selected>' in reviewer.get("/worklist?days=7&from=2020-01-01&to=2020-01-02").text
    assert ">DOE, Jane</a>" in reviewer.get("/worklist?days=7&from=2020-01-01&to=2020-01-02").text


def test_empty_lists_say_what_to_do(reviewer: TestClient, db: Database) -> None:
    assert "Nothing was received yet" in reviewer.get("/worklist").text
    ward.admit(db, 1, Verdict.COMPLIANT)
    flagged = reviewer.get("/worklist").text
    assert "No flagged studies" in flagged and "Last received" in flagged and "Show all" in flagged
    assert "Clear the filters" in reviewer.get("/worklist?tab=all&q=nobody").text


def test_a_fragment_is_the_list_alone(reviewer: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    fragment = reviewer.get("/worklist", headers={"HX-Request": "true", "HX-Target": "div#list"}).text
    assert fragment.lstrip().startswith('<div id="list"') and "<html" not in fragment


def test_the_filmstrip_says_how_each_image_stands(reviewer: TestClient, db: Database) -> None:
    states = (AnalysisState.DONE, AnalysisState.QUEUED, AnalysisState.QUARANTINED)
    pictures = [ward.Picture(ward.rgb().path, state=state) for state in states]
    page = reviewer.get(f"/studies/{ward.admit(db, 1, Verdict.COMPLIANT, pictures=pictures)}").text
    films = page.split('class="film"')[1:]
    for film, word in zip(films, ("assessed, not flagged", "not assessed yet", "could not be assessed"), strict=True):
        assert word in film, "one that was given up without a reason is not well"


def test_no_image_is_ticked_of_which_no_rule_asks_anything(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1, Verdict.COMPLIANT)
    with db.begin() as session:
        study = session.scalars(select(Study)).one()
        of_image = {"study_id": study.id, "instance_id": study.instances[0].id, "rulebook": "r", "code_version": "1"}
        session.add(VerdictRecord(verdict=Verdict.NOT_APPLICABLE, **of_image))
    film = reviewer.get(f"/studies/{uid}").text.split('class="film"')[1]
    assert "no rule asks anything of it" in film and "✓" not in film.split("</button>")[0]


def test_no_title_names_a_patient(reviewer: TestClient, db: Database) -> None:
    """Browsers keep titles in their history, on machines that many share."""
    uid = ward.admit(db, 1)
    for path in (f"/studies/{uid}", "/worklist?tab=all", "/worklist?q=doe"):
        title = reviewer.get(path).text.split("<title>")[1].split("</title>")[0]
        assert "doe" not in title.lower() and "P00001" not in title, path
    assert title.startswith("1 flagged")


def test_a_study_shows_finding_frames_and_decisions(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1, pictures=[ward.rgb(), ward.cine()])
    page = reviewer.get(f"/studies/{uid}").text
    assert "The body marker is missing on image 1" in page and "1968-03-02" in page and "A-1" in page
    assert (
        'value="confirm"' in page and 'value="override:present_missed"' in page and 'value="retake:body_marker"' in page
    )
    assert f"/api/instances/{uid}.1.1/frames/1/image" in page
    assert '30<span class="sr"> frames</span>' in page


def test_confirm_goes_on_to_the_next_study_and_offers_undo(reviewer: TestClient, db: Database) -> None:
    older, newer = ward.admit(db, 2), ward.admit(db, 1)
    gone = decide(reviewer, older, "confirm", queue="tab=flagged")
    assert gone.status_code == 303 and gone.headers["location"].startswith(f"/studies/{newer}?")
    assert decision_of(db, older) is Decision.CONFIRM
    there = reviewer.get(gone.headers["location"]).text
    assert "DOE, Jane confirmed" in there and f'action="/studies/{older}/reviews"' in there
    undone = decide(reviewer, older, "withdraw", 2)
    assert undone.headers["location"].startswith(f"/studies/{older}")
    assert decision_of(db, older) is None
    assert "Taken back" in reviewer.get(f"/studies/{older}").text


@pytest.mark.parametrize(("choice", "decision"), [("override:3", "override"), ("retake:body_marker", "retake")])
def test_reasons_by_digit_or_code(reviewer: TestClient, db: Database, choice: str, decision: str) -> None:
    uid = ward.admit(db, 1)
    assert decide(reviewer, uid, choice).status_code == 303
    assert decision_of(db, uid) == decision


def test_a_conflict_keeps_the_note_and_says_who(sign_in: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    ann, bob = sign_in(Role.REVIEWER, "ann"), sign_in(Role.REVIEWER, "bob")
    decide(ann, uid, "confirm")
    late = decide(bob, uid, "override:1", note="I see it on frame 2")
    assert late.status_code == 409 and "Nothing of yours was saved yet" in late.text
    assert "I see it on frame 2" in late.text and "Confirmed</strong> by ann" in late.text
    assert "I see it on frame 2" in bob.get(f"/studies/{uid}").text, "the note survives a reload"
    assert "I see it on frame 2" not in ann.get(f"/studies/{uid}").text, "and is its writer's alone"


def test_a_page_that_tells_of_a_conflict_is_a_look_at_the_study(
    sign_in: Callable[..., TestClient], db: Database
) -> None:
    uid = ward.admit(db, 1)
    decide(sign_in(Role.REVIEWER, "ann"), uid, "confirm")
    assert "DOE, Jane" in decide(sign_in(Role.REVIEWER, "bob"), uid, "override:1").text
    with db.read() as session:
        views = [(event.actor, event.subject) for event in audit.search(session, action="study.view")]
    assert views == [("bob", uid)]


def test_an_undo_is_its_own_deciders(sign_in: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    decide(sign_in(Role.REVIEWER, "ann"), uid, "confirm")
    assert decide(sign_in(Role.REVIEWER, "bob"), uid, "withdraw", 2).status_code == 409
    assert decision_of(db, uid) is Decision.CONFIRM


def test_an_undo_lets_the_decision_before_it_stand_again(sign_in: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    ann, bob = sign_in(Role.REVIEWER, "ann"), sign_in(Role.REVIEWER, "bob")
    decide(ann, uid, "confirm")
    decide(bob, uid, "retake:body_marker", 2)
    decide(bob, uid, "withdraw", 3)
    assert decision_of(db, uid) is Decision.CONFIRM


def test_a_draft_stays_with_its_study(reviewer: TestClient, db: Database) -> None:
    one, other = ward.admit(db, 1), ward.admit(db, 2)
    assert reviewer.put(f"/studies/{one}/draft", data={"note": "half a thought"}).status_code == 204
    assert "half a thought" in reviewer.get(f"/studies/{one}").text
    assert "half a thought" not in reviewer.get(f"/studies/{other}").text
    decide(reviewer, one, "confirm", note="half a thought")
    with db.read() as session:
        study = studies.brief(session, one)
        assert reviews.history(session, study)[0].note == "half a thought"
    assert 'maxlength="4000"' in reviewer.get(f"/studies/{one}").text
    assert reviewer.get(f"/studies/{one}").text.count("half a thought") == 1, "in the history, not in the box"


def test_a_viewer_sees_and_does_not_decide(sign_in: Callable[..., TestClient], db: Database) -> None:
    uid, viewer = ward.admit(db, 1), sign_in(Role.VIEWER)
    page = viewer.get(f"/studies/{uid}").text
    assert "The body marker is missing" in page and 'value="confirm"' not in page
    assert decide(viewer, uid, "confirm").status_code == 403


def test_what_could_not_be_assessed_says_why(reviewer: TestClient, db: Database) -> None:
    held = ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder.", cure="Install one.")
    page = reviewer.get(f"/studies/{ward.admit(db, 1, pictures=[held])}").text
    assert "No decoder." in page and "Install one." in page


def test_a_name_is_never_markup(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1, name=f"{CANARY}^J", station=CANARY, operator=CANARY, description=CANARY, institution=CANARY)
    reviewer.put(f"/studies/{uid}/draft", data={"note": f"</textarea>{CANARY}"})
    for path in ("/worklist", f"/studies/{uid}", f"/worklist?q={CANARY}&tab=all"):
        page = reviewer.get(path).text
        assert "<img src=x" not in page.lower() and "</textarea><" not in page.replace("</textarea>\n", "")


def test_an_accession_number_leads_to_its_study(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 7)
    assert reviewer.get("/accession/A-7").headers["location"] == f"/studies/{uid}"
    assert reviewer.get("/accession/A-8").status_code == 404
    with db.begin() as session:
        studies.brief(session, uid).accession_number = "2026/7"
    for written in ("2026/7", "2026%2F7"):
        assert reviewer.get(f"/accession/{written}").headers["location"] == f"/studies/{uid}"


def test_a_refusal_does_not_repeat_its_address(reviewer: TestClient) -> None:
    """It may hold an accession number, or a name that was searched."""
    for address in ("/accession/ZCANARYACC/x?q=ZCANARYNAME", "/studies/ZCANARYID", "/nowhere/ZCANARYID"):
        refused = reviewer.get(address)
        assert refused.status_code in (404, 422) and "ZCANARY" not in refused.text


def test_the_theme_leads_back_to_where_it_was_chosen(reviewer: TestClient) -> None:
    assert 'name="next" value="/worklist?tab=all&amp;q=x"' in reviewer.get("/worklist?tab=all&q=x").text


def test_pages_are_audited(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    reviewer.get("/worklist")
    reviewer.get(f"/studies/{uid}")
    decide(reviewer, uid, "confirm")
    with db.read() as session:
        actions = [event.action for event in reversed(audit.search(session))]
    assert actions == ["worklist.view", "study.view", "review.confirm"]


def test_a_lost_page_looks_like_one(reviewer: TestClient) -> None:
    page = reviewer.get("/studies/1.2.3")
    assert (
        page.status_code == 404 and "There is no study of that UID" in page.text and "Back to the worklist" in page.text
    )
    nowhere = reviewer.get("/nowhere").text
    assert "<h1>Not found</h1>" in nowhere and "What to do:" in nowhere and "404" not in nowhere


def test_a_request_that_is_not_right_is_answered_in_words(reviewer: TestClient, db: Database) -> None:
    """Which field, what is wrong with it and what to do; never what was sent, which may be a patient's name."""
    canary = "Canary^Name"
    page = reviewer.get(f"/reports/studies?group_by=week&key=2026-11-23&before={canary}").text
    assert "<h1>Not taken as it is</h1>" in page and "Unprocessable" not in page
    assert "Before: input should be a valid integer" in page and "Correct what is named" in page
    assert canary not in page.split("<main")[1].split("</main>")[0]
    told = reviewer.get("/api/reports/compliance?format=doc").json()
    assert "Format: input should be" in told["detail"] and told["cure"] and told["title"] == "Unprocessable Content"


@pytest.mark.parametrize(
    ("name", "spoken"),
    [
        ("DOE^Jane", "DOE, Jane"),
        ("doe^Jane^Q^Dr^III", "DOE, Dr Jane Q III"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "YAMADA, Tarou (山田, 太郎, やまだ, たろう)"),
        ("One Name", "One Name"),
        ("^Jane", "Jane"),
        ("", ""),
        ("^^^^=", ""),
        ("A^B^C^D^E^F^G", "A, D B C E"),
    ],
)
def test_person_names(name: str, spoken: str) -> None:
    assert words.person(name) == spoken


def test_a_filter_is_kept_under_a_name_and_forgotten(reviewer: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    kept = {"name": "My station", "query": "tab=flagged&station=US-03&cursor=x"}
    sent = reviewer.post("/preferences/filters", data=kept)
    assert sent.headers["location"] == "/worklist?tab=flagged&station=US-03"
    assert 'href="/worklist?tab=flagged&amp;station=US-03"' in reviewer.get("/worklist").text
    reviewer.post("/preferences/filters", data=kept | {"forget": "true"})
    assert "My station" not in reviewer.get("/worklist").text


def test_mine_are_the_studies_i_hold_and_those_i_scanned(reviewer: TestClient, db: Database) -> None:
    scanned = ward.admit(db, 1, operator="SONO^Grapher")
    held, other = ward.admit(db, 2, operator="X"), ward.admit(db, 3, operator="X")
    reviewer.post(f"/studies/{held}/hold")
    reviewer.post("/preferences", data={"operator": "SONO^Grapher"})
    page = reviewer.get("/worklist?tab=mine").text
    assert scanned in page and held in page and f"{other}?" not in page
    reviewer.post("/preferences", data={"operator": "-"})
    assert f"{scanned}?" not in reviewer.get("/worklist?tab=mine").text


def test_a_decision_about_another_verdict_is_history(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    given = {"decision": "override", "reason": "not_required", "version": 1}
    assert reviewer.post(f"/api/studies/{uid}/reviews", json=given).status_code == 201
    assert 'class="standing"' in reviewer.get(f"/studies/{uid}").text
    with db.begin() as session:
        study = studies.brief(session, uid)
        by = verdicts.Versions("test@0", "t0", "mine@2", "0")
        verdicts.record(session, study.id, None, Outcome(Verdict.COMPLIANT, ()), by)
        verdicts.settle_all(session, {study.id: Verdict.COMPLIANT})
    page = reviewer.get(f"/studies/{uid}").text
    assert 'class="standing"' not in page and "(no longer stands)" in page
    told = reviewer.get(f"/api/studies/{uid}").json()
    assert told["decision"] is None and [each["decision"] for each in told["reviews"]] == ["override"]
    assert 'value="withdraw"' not in reviewer.get(f"/studies/{uid}?decided={uid}").text
    back = {"decision": "withdraw", "version": told["version"]}
    assert reviewer.post(f"/api/studies/{uid}/reviews", json=back).status_code == 409


def test_a_page_that_others_worked_off_is_not_the_end(
    reviewer: TestClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.review.worklist.PAGE", 2)
    for number in range(1, 4):
        ward.admit(db, number, name=f"P{number}^X", received=ward.LONG_AGO + timedelta(minutes=number))
    flagged = {"tab": "flagged"}
    listed = reviewer.get("/api/studies", params=flagged | {"limit": 2}).json()
    behind = flagged | {"cursor": listed["next_cursor"]}
    assert "P3, X" in reviewer.get("/worklist", params=behind).text
    last = reviewer.get("/api/studies", params=behind).json()["studies"][0]["study_instance_uid"]
    decide(reviewer, last, "confirm")
    page = reviewer.get("/worklist", params=behind).text
    assert "P1, X" in page and "No flagged studies" not in page
