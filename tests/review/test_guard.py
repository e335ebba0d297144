"""What stands before every route: headers, hosts, cross-site requests, tokens, body limit, accidents."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from service.db.session import Database
from service.db.tables import Role
from service.review import deps, worklist
from service.settings import Settings
from tests.review import ward


@pytest.mark.parametrize("path", ["/sign-in", "/healthz", "/api/flow", "/nothing", "/static/sonomark.css", "/docs"])
def test_every_answer_carries_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] in ("no-store", "no-cache")


def test_templates_hold_no_inline_script_or_style(reviewer: TestClient, db: Database) -> None:
    uid = ward.admit(db, 1)
    for path in ("/worklist", f"/studies/{uid}", "/docs"):
        page = reviewer.get(path).text
        assert " style=" not in page and "<style" not in page and "onclick" not in page
        assert "<script>" not in page and "//" not in "".join(page.split('src="')[1:2])[:2]


def test_a_change_from_another_site_is_refused(reviewer: TestClient) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        assert reviewer.post("/preferences", data={"theme": "dark"}, headers=headers).status_code == 403
    fine = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    assert reviewer.post("/preferences", data={"theme": "dark"}, headers=fine).status_code == 303


def test_a_change_needs_the_sessions_token(reviewer: TestClient) -> None:
    token = reviewer.headers.pop("X-CSRF-Token")
    assert reviewer.post("/preferences", data={"theme": "dark"}).status_code == 403
    assert reviewer.post("/preferences", data={"theme": "dark", "csrf": "0" * 64}).status_code == 403
    assert reviewer.post("/preferences", data={"theme": "dark", "csrf": token}).status_code == 303


def test_the_token_of_another_session_is_worth_nothing(sign_in: Callable[..., TestClient]) -> None:
    one, other = sign_in(Role.VIEWER), sign_in(Role.ADMIN)
    one.headers["X-CSRF-Token"] = other.headers["X-CSRF-Token"]
    assert one.post("/preferences", data={"theme": "dark"}).status_code == 403


def test_a_stranger_host_name_is_refused(client: TestClient, house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400
    monkeypatch.setattr(house, "http_hosts", "sono.hospital.example")
    assert client.get("/healthz", headers={"Host": "sono.hospital.example:8000"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


def test_a_large_body_is_refused_whether_it_says_so_or_not(client: TestClient) -> None:
    said = client.post("/sign-in", content=b"x" * (2 << 20), headers={"Content-Type": "text/plain"})
    assert said.status_code == 413

    def pieces():
        for _ in range(40):
            yield b"x" * 65536

    unsaid = client.post("/sign-in", content=pieces(), headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert 400 <= unsaid.status_code < 500


def test_an_accident_tells_an_incident_and_no_detail(
    reviewer: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def burst(*_: object, **__: object) -> None:
        raise RuntimeError("DOE^Jane")

    monkeypatch.setattr(worklist.worklist, "page", burst)
    for path in ("/worklist", "/api/studies"):
        answer = reviewer.get(path)
        assert answer.status_code == 500 and "incident" in answer.text and "DOE" not in answer.text
        assert "content-security-policy" in answer.headers
    heard = capsys.readouterr()
    assert "DOE" not in heard.err + heard.out


def test_a_bearer_token_needs_no_form_token(token: Callable[..., TestClient]) -> None:
    assert token(Role.REVIEWER).post("/preferences", data={"theme": "dark"}).status_code == 303


def test_a_cookie_is_no_bearer_token(reviewer: TestClient) -> None:
    secret = reviewer.cookies[deps.COOKIE]
    stranger = TestClient(reviewer.app)
    assert stranger.get("/api/flow", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
