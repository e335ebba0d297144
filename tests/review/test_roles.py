"""Every role against every route: who is let in, and who is denied. A new route without an entry fails."""

from collections.abc import Callable

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from service.db import users
from service.db.session import Database
from service.db.tables import AnalysisState, Role
from service.review import auth
from service.review.app import create_app
from tests.review import ward

ANYBODY, READ, DECIDE, REVIEW, REPORT, ADMIN, AUDIT = "anybody", "read", "decide", "review", "report", "admin", "audit"
LET_IN = {
    ANYBODY: {None, *Role},
    READ: set(Role),
    DECIDE: {Role.SONOGRAPHER, Role.REVIEWER, Role.ADMIN},
    REVIEW: {Role.REVIEWER, Role.ADMIN},
    REPORT: {Role.REVIEWER, Role.AUDITOR, Role.ADMIN},
    ADMIN: {Role.ADMIN},
    AUDIT: {Role.AUDITOR, Role.ADMIN},
}
ROUTES = {
    "GET /sign-in": ANYBODY,
    "POST /sign-in": ANYBODY,
    "GET /sign-in/once": ANYBODY,
    "POST /sign-in/once": ANYBODY,
    "POST /sign-in/code": ANYBODY,
    "GET /sign-in/sso": ANYBODY,
    "GET /sign-in/sso/back": ANYBODY,
    "GET /profile": READ,
    "POST /profile/password": READ,
    "GET /profile/second-factor": READ,
    "POST /profile/second-factor": READ,
    "POST /profile/second-factor/remove": READ,
    "POST /profile/recovery-codes": READ,
    "POST /profile/sessions/{number}/end": READ,
    "POST /sign-out": ANYBODY,
    "GET /first-run": ANYBODY,
    "POST /first-run": ANYBODY,
    "GET /healthz": ANYBODY,
    "GET /readyz": ANYBODY,
    "GET /metrics": ANYBODY,
    "GET /docs": ANYBODY,
    "GET /": READ,
    "GET /worklist": READ,
    "GET /accession/{accession_number:path}": READ,
    "POST /worklist/decisions": DECIDE,
    "POST /preferences/columns": READ,
    "GET /api/studies": READ,
    "GET /studies/{study_instance_uid}": READ,
    "GET /session": READ,
    "GET /second-reads": DECIDE,
    "GET /second-reads/{study_instance_uid}": DECIDE,
    "POST /second-reads/{study_instance_uid}": DECIDE,
    "GET /studies/{study_instance_uid}/ahead": READ,
    "GET /studies/{study_instance_uid}/events": READ,
    "POST /studies/{study_instance_uid}/reviews": DECIDE,
    "PUT /studies/{study_instance_uid}/draft": DECIDE,
    "POST /studies/{study_instance_uid}/hold": DECIDE,
    "POST /studies/{study_instance_uid}/release": DECIDE,
    "GET /api/studies/{study_instance_uid}": READ,
    "POST /api/studies/{study_instance_uid}/reviews": DECIDE,
    "GET /events": READ,
    "GET /api/instances/{sop_instance_uid}": READ,
    "GET /api/instances/{sop_instance_uid}/frames/{number}/image": READ,
    "GET /api/instances/{sop_instance_uid}/frames/{number}/mask": READ,
    "GET /api/instances/{sop_instance_uid}/frames/{number}/restoration": READ,
    "GET /api/instances/{sop_instance_uid}/frames/{number}/residual": READ,
    "POST /api/instances/{sop_instance_uid}/frames/{number}/corrections": DECIDE,
    "DELETE /api/corrections/{number}": DECIDE,
    "GET /api/corrections": REVIEW,
    "GET /api/flow": READ,
    "GET /flow": READ,
    "POST /flow/requeue": ADMIN,
    "GET /reports": REPORT,
    "GET /reports/studies": REPORT,
    "GET /reports/mine": READ,
    "GET /reports/mine/studies": READ,
    "GET /api/reports/compliance": REPORT,
    "GET /api/reports/compliance/studies": REPORT,
    "GET /api/reports/chart": REPORT,
    "GET /api/reports/agreement": REPORT,
    "POST /api/reevaluations": ADMIN,
    "GET /api/reevaluations": READ,
    "GET /api/reevaluations/{number}": READ,
    "POST /api/reevaluations/{number}/cancel": ADMIN,
    "GET /deliveries": ADMIN,
    "POST /deliveries/{number}/{change}": ADMIN,
    "GET /api/deliveries": ADMIN,
    "POST /api/deliveries/{number}/retry": ADMIN,
    "POST /api/deliveries/{number}/cancel": ADMIN,
    "GET /api/double-reads": DECIDE,
    "GET /api/double-reads/disagreements": REVIEW,
    "GET /api/double-reads/{study_instance_uid}": DECIDE,
    "POST /api/double-reads/{study_instance_uid}": DECIDE,
    "GET /api/double-reads/{study_instance_uid}/disagreement": REVIEW,
    "POST /api/double-reads/{study_instance_uid}/adjudication": REVIEW,
    "GET /rulebooks": READ,
    "POST /rulebooks": ADMIN,
    "GET /rulebooks/{number}/compare": READ,
    "GET /rulebooks/{number}/activate": ADMIN,
    "GET /what-if/{number}": READ,
    "POST /what-if/{number}/cancel": ADMIN,
    "POST /rulebooks/{number}/what-if": ADMIN,
    "POST /rulebooks/{number}/activate": ADMIN,
    "POST /rulebooks/{number}/reevaluate": ADMIN,
    "POST /api/rulebooks/{number}/activate": ADMIN,
    "GET /api/rulebooks": READ,
    "PUT /api/rulebooks": ADMIN,
    "POST /api/rulebooks/check": READ,
    "GET /api/rulebooks/{number}": READ,
    "POST /api/rulebooks/{number}/what-if": ADMIN,
    "GET /api/what-if/{number}": READ,
    "POST /flow/switches/{name}": ADMIN,
    "GET /peers": ADMIN,
    "POST /peers": ADMIN,
    "POST /peers/open": ADMIN,
    "POST /peers/{number}": ADMIN,
    "POST /peers/{number}/disable": ADMIN,
    "POST /peers/{number}/enable": ADMIN,
    "POST /peers/{number}/echo": ADMIN,
    "GET /models": READ,
    "GET /models/{name}/activate": ADMIN,
    "POST /models/{name}/activate": ADMIN,
    "POST /models/of-settings": ADMIN,
    "GET /self-test": ADMIN,
    "POST /self-test": ADMIN,
    "GET /users": ADMIN,
    "POST /users": ADMIN,
    "GET /users/{name}": ADMIN,
    "POST /users/{name}/sessions/{number}/end": ADMIN,
    "POST /users/{name}/{change}": ADMIN,
    "GET /tokens": ADMIN,
    "POST /tokens": ADMIN,
    "POST /tokens/{number}/revoke": ADMIN,
    "GET /audit": AUDIT,
    "POST /preferences": READ,
    "POST /preferences/filters": READ,
    "GET /archive": ADMIN,
    "POST /archive/policies": ADMIN,
    "POST /archive/policies/{number}/activate": ADMIN,
    "POST /archive/retire": ADMIN,
    "POST /archive/holds": ADMIN,
    "POST /archive/holds/lift": ADMIN,
    "GET /api/archive": READ,
    "POST /dicomweb/studies": DECIDE,
    "POST /dicomweb/studies/{study}": DECIDE,
    **{
        f"GET /dicomweb{path}": READ
        for path in (
            "/studies",
            "/series",
            "/instances",
            "/studies/{study}/series",
            "/studies/{study}/instances",
            "/studies/{study}/series/{series}/instances",
            "/studies/{study}",
            "/studies/{study}/series/{series}",
            "/studies/{study}/series/{series}/instances/{instance}",
            "/studies/{study}/metadata",
            "/studies/{study}/series/{series}/metadata",
            "/studies/{study}/series/{series}/instances/{instance}/metadata",
            "/studies/{study}/series/{series}/instances/{instance}/frames/{numbers}",
            "/studies/{study}/series/{series}/instances/{instance}/rendered",
            "/studies/{study}/series/{series}/instances/{instance}/frames/{numbers}/rendered",
        )
    },
    "GET /api/retention/policies": ADMIN,
    "PUT /api/retention/policies": ADMIN,
    "GET /api/retention/policies/{number}/due": ADMIN,
    "POST /api/retention/policies/{number}/activate": ADMIN,
    "POST /api/retention/retire": ADMIN,
    "GET /api/legal-holds": REPORT,
    "PUT /api/studies/{study_instance_uid}/legal-hold": REVIEW,
    "DELETE /api/studies/{study_instance_uid}/legal-hold": ADMIN,
}
# What any route that changes a study takes, so that it is refused for the study and for nothing else.
FORM = {"choice": "confirm", "version": "1", "note": "x", "answer": "complete"}
BODY = {"decision": "confirm", "version": 1, "answer": "complete", "kind": "caliper", "box": [1, 1, 9, 9]}
HOLD = {"reason": "a lawsuit"}
# They never end, so only their refusals are tried here.
STREAMS = ("GET /events", "GET /studies/{study_instance_uid}/events")


def routes() -> set[str]:
    """Every route of the application, as its description and its pages name them."""
    found = set()
    waiting = list(create_app().routes)
    while waiting:
        route = waiting.pop()
        waiting += getattr(getattr(route, "original_router", None), "routes", [])
        if isinstance(route, APIRoute):
            found |= {f"{method} {route.path}" for method in route.methods or ()}
    return found


def test_every_route_has_its_entry() -> None:
    assert routes() == set(ROUTES)


@pytest.mark.parametrize("role", [None, *Role])
def test_each_route_lets_in_whom_it_should(
    role: Role | None, client: TestClient, sign_in: Callable[..., TestClient], db: Database
) -> None:
    uid = ward.admit(db, 1)
    sign_in(Role.ADMIN, "boss")
    client.app.state.attempts = auth.Attempts(1000)
    for route, rule in ROUTES.items():
        method, path = route.split(" ", 1)
        for name, value in {
            "{study_instance_uid}": uid,
            "{sop_instance_uid}": f"{uid}.1.1",
            "{number}": "1",
            "{accession_number:path}": "A-1",
            "{name}/{change}": "boss/unlock",
            "{name}": "boss",
        }.items():
            path = path.replace(name, value)
        allowed = role in LET_IN[rule]
        if route in STREAMS and allowed:
            continue
        browser = TestClient(client.app, follow_redirects=False) if role is None else sign_in(role)
        answer = browser.request(method, path)
        denied = answer.status_code in (401, 403) or "/sign-in?" in answer.headers.get("location", "")
        if rule is ANYBODY:
            continue
        assert denied is not allowed, (route, role, answer.status_code)


@pytest.mark.parametrize("role", [Role.VIEWER, Role.SONOGRAPHER, Role.REVIEWER])
def test_what_belongs_to_another_site_is_not_there(
    role: Role, client: TestClient, sign_in: Callable[..., TestClient], db: Database
) -> None:
    uid = ward.admit(
        db,
        1,
        institution="North",
        name="CANARY^Site",
        pictures=[ward.Picture(ward.rgb().path, state=AnalysisState.QUARANTINED, reason="No decoder.")],
    )
    here, elsewhere = sign_in(role, "north", "North"), sign_in(role, "south", "South")
    named = [route for route in ROUTES if "uid}" in route or "accession" in route]
    assert len(named) >= 10
    for route in named:
        if ROUTES[route] not in (READ, DECIDE, REVIEW, REPORT) or role not in LET_IN[ROUTES[route]]:
            continue
        method, path = route.split(" ", 1)
        path = path.replace("{study_instance_uid}", uid).replace("{sop_instance_uid}", f"{uid}.1.1")
        path = path.replace("{number}", "1").replace("{accession_number:path}", "A-1")
        sent = (
            {}
            if method == "GET"
            else {"json": HOLD if path.endswith("hold") else BODY}
            if path.startswith("/api")
            else {"data": FORM}
        )
        answer = elsewhere.request(method, path, **sent)
        assert answer.status_code == 404, (route, answer.status_code)
    for path in ("/worklist?tab=all", "/api/studies", "/flow"):
        assert uid not in elsewhere.get(path).text and "CANARY" not in elsewhere.get(path).text
    assert uid in here.get("/api/studies").text and uid in here.get("/flow").text


def test_an_auditor_finds_the_way_to_the_reports(sign_in: Callable[..., TestClient], db: Database) -> None:
    ward.admit(db, 1)
    auditor, sonographer = sign_in(Role.AUDITOR), sign_in(Role.SONOGRAPHER)
    page = auditor.get("/worklist").text
    assert 'href="/reports"' in page and 'href="/audit"' in page
    assert auditor.get("/reports?group_by=requirement").status_code == 200
    assert 'href="/reports"' not in sonographer.get("/worklist").text
    assert "This needs the role reviewer or auditor." in sonographer.get("/reports").text


def test_what_an_auditors_token_reads_is_its_scopes(token: Callable[..., TestClient], db: Database) -> None:
    for path in ("/api/reports/compliance", "/audit"):
        assert token(Role.AUDITOR, "read").get(path).status_code == 200
        assert token(Role.AUDITOR, "store").get(path).status_code == 403


@pytest.mark.parametrize("scope", ["read", "admin"])
def test_no_token_changes_its_owners_account(
    token: Callable[..., TestClient], db: Database, client: TestClient, scope: str
) -> None:
    """With a password of its choice a token would be the whole account, beyond scope and expiry."""
    client.app.state.attempts = auth.Attempts(1000)
    program = token(Role.ADMIN, scope)
    with db.begin() as session:
        labelled = users.make_api_token(session, users.get_user(session, f"program-admin-{scope}"), "link", scope)
    changing = [route for route in ROUTES if route.startswith("POST /profile")]
    assert len(changing) >= 5
    for secret in (program.headers["Authorization"], f"Bearer {labelled}"):
        for route in changing:
            form = {"password": "quite another horse", "code": "123456"}
            path = route.removeprefix("POST ").replace("{number}", "1")
            answer = program.post(path, data=form, headers={"Authorization": secret})
            assert answer.status_code == 403 and "token" in answer.text, (route, answer.status_code)
    with db.read() as session:
        assert users.get_user(session, f"program-admin-{scope}").password_hash == ""
