"""The administrators' pages: flow and quarantine, users, tokens, audit, rule books, reports."""

import html
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from service.db import audit, deliveries, studies, users, verdicts
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, AuditEvent, Credential, Reevaluation, Role, Verdict
from service.jobs import reevaluate
from service.review import flow
from service.settings import settings
from tests.review import ward

BOOK = """
name = "small"
version = "{version}"
title = "One rule"

[[requirement]]
id = "marker"
title = "Body marker"
severity = "major"
applies_to = {{ exam = "breast" }}
expect = {{ annotation = "body_marker" }}
"""


@pytest.fixture
def admin(sign_in: Callable[..., TestClient]) -> TestClient:
    return sign_in(Role.ADMIN)


def test_the_quarantine_groups_by_reason_and_queues_again(admin: TestClient, db: Database) -> None:
    held = ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder.", cure="Install one.")
    for number in (1, 2):
        ward.admit(db, number, pictures=[held])
    page = admin.get("/flow").text
    assert "No decoder." in page and "×2" in page and "Install one." in page
    with db.read() as session:
        ids = list(session.scalars(select(Analysis.id)))
    again = admin.post("/flow/requeue", data={"ids": ids})
    assert again.headers["location"] == "/flow?requeued=2"
    assert "2 instances queued again" in admin.get("/flow?requeued=2").text
    with db.read() as session:
        assert set(session.scalars(select(Analysis.state))) == {AnalysisState.QUEUED}


def test_the_flow_that_refreshes_itself_is_no_look_at_the_quarantine(admin: TestClient, db: Database) -> None:
    held = ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder.")
    ward.admit(db, 1, pictures=[held])
    admin.get("/flow")
    for _ in range(3):
        assert "No decoder" not in admin.get("/flow", headers={"HX-Request": "true"}).text
    with db.read() as session:
        assert [event.action for event in audit.search(session, action="quarantine.")] == ["quarantine.view"]


def test_the_quarantine_of_a_site_and_one_that_is_longer_than_the_page(
    admin: TestClient, sign_in: Callable[..., TestClient], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "MOST_HELD", 2)
    held = ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder.")
    ward.admit(db, 1, institution="South", pictures=[held])
    for number in (2, 3):
        ward.admit(db, number, institution="North", pictures=[held])
    page = admin.get("/flow").text
    assert 'Quarantine <span class="muted">3</span>' in page and "The newest 2 are shown" in page and "×2" in page
    south = sign_in(Role.VIEWER, "south", "South").get("/flow").text
    assert 'Quarantine <span class="muted">1</span>' in south and "×1" in south, "found behind the newest of others"
    assert "Quarantine</h2>" in sign_in(Role.VIEWER, "west", "West").get("/flow").text


def test_an_empty_quarantine_says_so(admin: TestClient) -> None:
    assert "Nothing is held back" in admin.get("/flow").text


def test_a_user_from_invitation_to_the_door(admin: TestClient, db: Database) -> None:
    page = admin.post("/users", data={"name": "eve", "role": "viewer"}).text
    token = re.search(r"token=([\w-]+)", page).group(1)  # type: ignore[union-attr]
    eve = TestClient(admin.app, follow_redirects=False)
    assert eve.post("/sign-in/once", data={"token": token}).status_code == 303
    assert eve.get("/worklist").status_code == 200
    assert admin.post("/users/eve/disable").status_code == 303
    assert eve.get("/worklist").status_code == 303, "a disabled account is out at once"
    assert "disabled" in admin.get("/users").text
    assert admin.post("/users", data={"name": "eve", "role": "viewer"}).status_code == 422


def test_what_was_typed_is_still_there_when_it_is_refused(admin: TestClient, db: Database) -> None:
    refused = admin.post("/users", data={"name": "eve", "role": "auditor", "site": "North"})
    assert refused.status_code == 422
    for kept in ('value="eve"', "<option selected>auditor", 'value="North"'):
        assert kept in refused.text
    refused = admin.post("/archive/holds", data={"uid": "1.2.3", "reason": "the court asks"})
    assert refused.status_code == 404 and 'value="1.2.3"' in refused.text and 'value="the court asks"' in refused.text
    number = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()["id"]
    refused = admin.post(f"/rulebooks/{number}/activate", data={"typed": "2", "reason": "agreed on Monday"})
    assert refused.status_code == 422
    assert "Type 1 to put it in force" in refused.text and 'value="agreed on Monday"' in refused.text


def test_an_admin_cannot_shut_itself_out(admin: TestClient) -> None:
    assert admin.post("/users/admin/disable").status_code == 403
    assert admin.post("/users/admin/role", data={"role": "viewer"}).status_code == 403


def test_a_new_role_ends_the_sessions_of_the_old_one(admin: TestClient, sign_in: Callable[..., TestClient]) -> None:
    eve = sign_in(Role.VIEWER, "eve")
    admin.post("/users/eve/role", data={"role": "reviewer"})
    assert eve.get("/worklist").status_code == 303


def test_a_token_is_shown_once_and_can_be_revoked(admin: TestClient, db: Database) -> None:
    made = admin.post("/tokens", data={"name": "admin", "label": "robot", "scope": "read", "days": 1}).text
    secret = re.search(r"<code>([\w-]{40,})</code>", made).group(1)  # type: ignore[union-attr]
    assert secret not in admin.get("/tokens").text
    robot = TestClient(admin.app)
    robot.headers["Authorization"] = f"Bearer {secret}"
    assert robot.get("/api/flow").status_code == 200
    with db.read() as session:
        (kept,) = users.standing(session, users.TOKEN)
    admin.post(f"/tokens/{kept.id}/revoke")
    assert robot.get("/api/flow").status_code == 401


def test_a_token_of_every_scope_that_the_page_offers(admin: TestClient) -> None:
    offered = re.findall(r"<option>(\w+)</option>", admin.get("/tokens").text.split('name="scope"')[1])
    assert offered == list(users.SCOPES)
    for scope in offered:
        made = admin.post("/tokens", data={"name": "admin", "label": scope, "scope": scope, "days": 1})
        assert "The new token" in made.text, scope


def test_sessions_that_were_idle_too_long_are_not_counted(
    admin: TestClient, sign_in: Callable[..., TestClient], db: Database
) -> None:
    sign_in(Role.VIEWER, "eve")
    with db.begin() as session:
        eve = users.get_user(session, "eve")
        (began,) = users.sessions_of(session, eve)
        at = began.last_seen_at - timedelta(seconds=settings().session_idle_s + 1)
        session.execute(update(Credential).where(Credential.id == began.id).values(last_seen_at=at))
    assert "/users/eve/end-sessions" not in admin.get("/users").text
    with db.read() as session:
        assert not users.still_stands(session, began.id), "nor does a stream that it opened go on"


def test_the_audit_page_verifies_the_chain(admin: TestClient, db: Database) -> None:
    admin.get("/worklist")
    assert "The chain is whole" in admin.get("/audit?verify=true").text
    with db.begin() as session:
        session.execute(update(AuditEvent).where(AuditEvent.id == 1).values(actor="mallory"))
    assert "The chain is broken at event 1" in admin.get("/audit?verify=true").text


def test_the_audit_page_searches(admin: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    admin.get(f"/studies/{uid}")
    admin.get("/worklist")
    page = admin.get(f"/audit?subject={uid}").text
    assert "study.view" in page and "worklist.view" not in page
    with db.read() as session:
        assert audit.search(session)[0].action == "audit.view", "looking at the trail is in the trail"


def test_a_rule_book_from_draft_to_force(admin: TestClient, db: Database) -> None:
    kept = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")})
    assert kept.status_code == 200, kept.text
    number = kept.json()["id"]
    told = admin.get(f"/api/rulebooks/{number}").json()
    assert told["activated_at"] is None and told["in_words"]
    asked = admin.post(f"/api/rulebooks/{number}/what-if").json()
    assert admin.get(f"/api/what-if/{asked['id']}").json()["total"] == 0
    assert admin.post(f"/rulebooks/{number}/activate", data={"typed": "no"}).status_code == 422
    assert admin.post(f"/rulebooks/{number}/activate", data={"typed": "1"}).status_code == 422
    asked_for = {"typed": "1", "reason": "agreed in the council"}
    assert admin.post(f"/rulebooks/{number}/activate", data=asked_for).status_code == 303
    assert "in force" in admin.get(f"/rulebooks?version={number}").text


def test_a_wrong_rule_book_names_the_line(admin: TestClient) -> None:
    wrong = BOOK.format(version="1").replace('"body_marker"', '"bodymarker"')
    told = admin.post("/api/rulebooks/check", json={"toml": wrong}).json()
    assert told[0]["line"] == 11 and told[0]["is_error"]
    assert admin.put("/api/rulebooks", json={"toml": wrong}).status_code == 422
    page = admin.post("/rulebooks", data={"toml": wrong})
    assert page.status_code == 422 and "Line 11" in page.text and "bodymarker" in page.text


def test_two_editors_do_not_overwrite_each_other(admin: TestClient) -> None:
    first = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()
    edit = {"based_on": first["sha256"]}
    assert admin.put("/api/rulebooks", json={"toml": BOOK.format(version="2"), **edit}).status_code == 200
    assert admin.put("/api/rulebooks", json={"toml": BOOK.format(version="3"), **edit}).status_code == 409


@pytest.mark.parametrize("kind", ["json", "csv", "xlsx", "pdf"])
def test_reports_in_every_format(admin: TestClient, db: Database, kind: str) -> None:
    ward.admit(db, 1)
    ward.admit(db, 2, Verdict.COMPLIANT)
    answer = admin.get(f"/api/reports/compliance?group_by=station&format={kind}")
    assert answer.status_code == 200 and answer.content
    if kind == "json":
        assert (answer.json()["total"]["numerator"], answer.json()["total"]["denominator"]) == (1, 2)


def test_the_reports_page_shows_denominators_and_leads_to_the_studies(admin: TestClient, db: Database) -> None:
    assert "No assessed studies" in admin.get("/reports").text
    ward.admit(db, 1)
    ward.admit(db, 2, Verdict.COMPLIANT)
    assert "1 of 2 studies complete" in admin.get("/reports").text
    assert re.search(r'id="judgements">.*\d of \d judgements met', admin.get("/reports").text)
    page = admin.get("/reports?group_by=station").text
    assert "1 of 2 studies complete" in page and "judgements" not in page
    assert "33." not in page and "50.0 %" in page and 'id="over-time-data"' in page and 'id="by-size-data"' in page
    address = html.unescape(re.search(r'href="(/reports/studies[^"]*counted=non_compliant[^"]*)"', page)[1])
    behind = admin.get(address).text
    assert behind.count('href="/studies/') == 1 and "Station US-03: missing" in behind and "<td>Flagged</td>" in behind
    assert "US-03: " not in admin.get("/reports?group_by=station&as_of=2020-01-01").text
    assert "fewer than 20" in admin.get("/reports?group_by=operator").text, "no rate of a person over few studies"
    assert "Nearest data" in admin.get("/reports?from=2020-01-01&to=2020-01-02").text
    assert admin.get("/reports/studies?group_by=week&key=never").status_code == 422
    assert admin.get("/api/reports/compliance?group_by=moon").status_code == 422


def test_a_study_is_held_by_one_person(sign_in: Callable[..., TestClient], db: Database) -> None:
    uid = ward.admit(db, 1)
    ann, bob = sign_in(Role.REVIEWER, "ann"), sign_in(Role.REVIEWER, "bob")
    sonographer = sign_in(Role.SONOGRAPHER, "sam")
    assert ann.post(f"/studies/{uid}/hold", data={"next": "/worklist"}).headers["location"] == "/worklist"
    assert "⊘ ann" in bob.get("/worklist").text and "ann holds this since" in bob.get(f"/studies/{uid}").text
    assert bob.post(f"/studies/{uid}/hold").status_code == 409
    assert sonographer.post(f"/studies/{uid}/hold", data={"take_over": "true"}).status_code == 403
    assert "take_over" in bob.get(f"/studies/{uid}").text
    assert "take_over" not in sonographer.get(f"/studies/{uid}").text, "nobody is offered what is refused"
    assert bob.post(f"/studies/{uid}/hold", data={"take_over": "true"}).status_code == 303
    assert "⊘ bob" in ann.get("/worklist").text
    bob.post(f"/studies/{uid}/release")
    assert "⊘" not in ann.get("/worklist").text


def test_an_overtaken_text_is_shown_beside_theirs_and_not_lost(admin: TestClient, db: Database) -> None:
    first = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()
    second = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="2"), "based_on": first["sha256"]}).json()
    mine = BOOK.format(version="3").replace("Body marker", "My marker")
    refused = admin.post("/rulebooks", data={"toml": mine, "based_on": first["sha256"]})
    assert refused.status_code == 409
    assert "My marker" in refused.text and "saved version 2" in refused.text
    for heading in ("Version 1, which both began from", "Version 2 by admin", "Yours"):
        assert f">{heading}</th>" in refused.text
    assert refused.text.count("both changed") == 1, "the version's line; my other line touched nothing of theirs"
    assert f'value="{second["sha256"]}"' in refused.text, "saved again, it is based on theirs"
    assert admin.post("/rulebooks", data={"toml": mine, "based_on": second["sha256"]}).status_code == 303
    compared = admin.get(f"/rulebooks/{second['id']}/compare?with={first['id']}").text
    assert "version = &#34;2&#34;" in compared and "From 1 to 2" in compared


def test_a_text_that_cannot_be_saved_says_so_in_the_editors_words(admin: TestClient, db: Database) -> None:
    wrong = BOOK.format(version="1").replace("body_marker", "body_maker")
    refused = admin.post("/rulebooks", data={"toml": wrong})
    assert refused.status_code == 422
    problem = html.unescape(refused.text.split('class="error-summary"')[1].split("</div>")[0])
    assert "Line 11: Unknown value 'body_maker'. Did you mean 'body_marker'?" in problem
    assert "sonomark rules" not in problem and "draft:" not in problem, "that is the command line's way to say it"
    kept = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()
    other = BOOK.format(version="1").replace("Body marker", "My marker")
    twin = admin.post("/rulebooks", data={"toml": other, "based_on": kept["sha256"]})
    assert twin.status_code == 409 and "is kept already, with another text" in twin.text
    assert "which both began from" not in twin.text and "My marker" in twin.text, "nobody else went on from it"


def test_a_shipped_rule_book_is_begun_with(admin: TestClient, sign_in: Callable[..., TestClient]) -> None:
    page = admin.get("/rulebooks").text
    for name in ("breast-acr", "carotid-svu", "default", "general-aium", "thyroid-aium"):
        assert f'href="/rulebooks?begin={name}"' in page
    begun = admin.get("/rulebooks?begin=breast-acr").text
    assert "shipped, not saved here yet" in begun and "in force</span>" not in begun.split("<h1>")[1].split("</h1>")[0]
    text = html.unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", begun, re.S)[1])
    based_on = re.search(r'name="based_on" value="([0-9a-f]+)"', begun)[1]
    saved = admin.post("/rulebooks", data={"toml": text, "based_on": based_on})
    assert saved.status_code == 303 and "breast-acr" in admin.get(saved.headers["location"]).text
    assert admin.get("/rulebooks?begin=brest").status_code == 404
    assert "begin=" not in sign_in(Role.VIEWER).get("/rulebooks").text, "who saves nothing begins nothing"


def test_what_a_version_would_have_said_is_there_when_it_is_put_in_force(admin: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    number = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()["id"]
    asked = admin.post(f"/api/rulebooks/{number}/what-if").json()["id"]
    assert reevaluate.run(db, asked)
    assert "Of the last 1 study" in admin.get(f"/rulebooks/{number}/activate").text


def test_a_version_is_put_in_force_on_a_page_that_shows_what_changes(admin: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    number = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()["id"]
    page = admin.get(f"/rulebooks/{number}/activate").text
    assert 'class="line add"' in page and "Nobody has asked yet" in page
    asked = admin.post(f"/rulebooks/{number}/what-if", data={"activating": "true"}).headers["location"]
    assert asked.startswith(f"/rulebooks/{number}/activate?ask=")
    assert "So far, of the last 1 study" in admin.get(asked).text
    fragment = f"/what-if/{asked.rpartition('=')[2]}"
    assert 'hx-trigger="every 1s"' in admin.get(fragment).text
    assert "what-if-cancel" not in admin.get(fragment).text, "what replaces itself holds no button to press"
    stopped = admin.post(f"{fragment}/cancel").text
    assert "hx-trigger" not in stopped and "Cancelled before the first study" in stopped
    assert 'hx-target="#what-if-stop" hx-swap="delete"' in stopped and "what-if-stop" not in admin.get(asked).text


def test_a_what_if_names_the_studies_behind_each_change_and_no_more_than_it_judged(
    admin: TestClient, db: Database
) -> None:
    uids = [ward.admit(db, number) for number in (1, 2)]
    other = BOOK.format(version="1").replace('"breast"', '"thyroid"')
    number = admin.put("/api/rulebooks", json={"toml": other}).json()["id"]
    asked = admin.post(f"/api/rulebooks/{number}/what-if").json()["id"]
    with db.begin() as session:
        while not (whole := session.get_one(Reevaluation, asked)).done:
            reevaluate.step(session, asked, limit=1)
            session.expire_all()
        assert (whole.done, whole.total) == (1, 2)
    shown = admin.post(f"/what-if/{asked}/cancel").text
    assert "Cancelled. Of 1 study:" in shown and "the last 2" not in shown
    named = [uid for uid in uids if f"/studies/{uid}" in shown]
    assert len(named) == 1 and "1 study: flagged → no rule applies" in shown


def test_the_api_puts_a_version_in_force_and_none_that_contradicts_itself(admin: TestClient) -> None:
    number = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()["id"]
    where = f"/api/rulebooks/{number}/activate"
    assert admin.post(where, json={"version": "2", "reason": "x"}).status_code == 422
    assert admin.post(where, json={"version": "1", "reason": "agreed"}).json()["activated_at"]
    wrong = BOOK.format(version="2").replace('"body_marker"', '"body_marker", without = "body_marker"')
    number = admin.put("/api/rulebooks", json={"toml": wrong}).json()["id"]
    refused = admin.post(f"/api/rulebooks/{number}/activate", json={"version": "2", "reason": "x"})
    assert refused.status_code == 422 and "bans it" in refused.text
    page = admin.get(f"/rulebooks/{number}/activate").text
    assert "It cannot be put in force" in page and 'name="typed"' not in page


def test_the_page_knows_from_which_version_a_text_began(admin: TestClient, db: Database) -> None:
    """Also where nobody chose one, and after a text that was refused: else the second to save would win unseen."""
    first = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()
    admin.post(f"/rulebooks/{first['id']}/activate", data={"typed": "1", "reason": "x"})
    assert f'name="based_on" value="{first["sha256"]}"' in admin.get("/rulebooks").text
    refused = admin.post("/rulebooks", data={"toml": "name = 1", "based_on": first["sha256"]})
    assert refused.status_code == 422 and f'name="based_on" value="{first["sha256"]}"' in refused.text


def test_past_days_are_judged_again_on_the_page(admin: TestClient, db: Database) -> None:
    ward.admit(db, 1)
    number = admin.put("/api/rulebooks", json={"toml": BOOK.format(version="1")}).json()["id"]
    days = {"first_day": "2020-01-01", "last_day": "2100-01-01"}
    backwards = {"first_day": "2100-01-01", "last_day": "2020-01-01"}
    refused = admin.post(f"/rulebooks/{number}/reevaluate", data=backwards)
    assert refused.status_code == 422 and "lies before the first" in refused.text
    assert admin.post(f"/rulebooks/{number}/reevaluate", data=days).status_code == 409, "it was never in force"
    admin.post(f"/rulebooks/{number}/activate", data={"typed": "1", "reason": "x"})
    page = admin.get(f"/rulebooks?version={number}").text
    assert f'action="/rulebooks/{number}/reevaluate"' in page
    asked = admin.post(f"/rulebooks/{number}/reevaluate", data=days).headers["location"]
    assert "So far, of 1 study judged again" in admin.get(asked).text
    reevaluate.run(db, int(asked.rpartition("=")[2]))
    done = admin.get(asked).text
    assert "Of 1 study judged again" in done and "hx-trigger" not in done.split('id="what-if-now"')[1].split(">")[0]


def test_the_outbox_on_its_page(admin: TestClient, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nothing goes out" in admin.get("/deliveries").text
    monkeypatch.setattr(settings(), "report_to", "PACS@127.0.0.1:9")
    uid = ward.admit(db, 1, name="CANARY^Name")
    with db.begin() as session:
        study = studies.brief(session, uid)
        deliveries.plan_verdict(session, study, verdicts.standing(session, study.id))
        number = deliveries.newest(session)[0].id
        deliveries.failed(session, number, "It does not answer.", "Look whether it runs.")
    page = admin.get("/deliveries?state=waiting").text
    assert "Structured report" in page and "It does not answer. Look whether it runs." in page and uid in page
    assert "CANARY" not in page
    assert admin.post(f"/deliveries/{number}/cancel").status_code == 303
    assert "cancelled</span>" in admin.get("/deliveries").text
    assert admin.post(f"/deliveries/{number}/retry").headers["location"] == "/deliveries?state=waiting"
    assert admin.post("/deliveries/99/retry").status_code == 404
