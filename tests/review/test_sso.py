"""Single sign-on: through a certified OpenID Connect provider, and against one that lies."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey

from service.db import users
from service.db.session import Database
from service.db.tables import Role
from service.errors import ConfigurationError
from service.review import sso
from service.settings import Settings
from tests.review import forger

HERE = Path(__file__).parent / "identity_provider"
BACK = "http://testserver/sign-in/sso/back"
ROLES = "pacs-admins=admin, sonographers=sonographer, staff=viewer"


@pytest.fixture
def provider() -> Iterator[str]:
    """The issuer of a real provider, a process of its own."""
    if shutil.which("node") is None or not (HERE / "node_modules").is_dir():
        pytest.skip("no OpenID Connect provider: npm ci --prefix tests/review/identity_provider")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["node", str(HERE / "server.js"), str(port), BACK],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert "listening" in process.stdout.readline()
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def liar() -> Iterator[forger.Forger]:
    with forger.working() as working:
        yield working


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    sso.configured.cache_clear()
    yield
    sso.configured.cache_clear()


def configure(house: Settings, monkeypatch: pytest.MonkeyPatch, issuer: str, **more: str) -> None:
    given = {
        "oidc_issuer": issuer,
        "oidc_client_id": "sonomark",
        "oidc_client_secret": "a secret that only this test knows",
        "oidc_roles": ROLES,
        "oidc_site_claim": "site",
    }
    for name, value in (given | more).items():
        monkeypatch.setattr(house, name, value)


def sign_in_there(address: str, person: str) -> str:
    """Fill in the provider's forms as a person does; returns where it sends the browser back to."""
    with httpx.Client(follow_redirects=False, trust_env=False) as browser:
        answer = browser.get(address)
        for _ in range(12):
            if answer.is_redirect:
                target = str(answer.url.join(answer.headers["location"]))
                if target.startswith(BACK):
                    return target
                answer = browser.get(target)
                continue
            action = re.search(r'action="([^"]+)"', answer.text)[1]
            prompt = re.search(r'name="prompt" value="([^"]+)"', answer.text)[1]
            answer = browser.post(action, data={"prompt": prompt, "login": person, "password": "x"})
    raise AssertionError("the provider never sent the browser back")


def test_a_person_signs_in_with_the_role_of_the_group(
    client: TestClient, db: Database, house: Settings, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    configure(house, monkeypatch, provider)
    with db.begin() as session:
        users.create_user(session, "boss", Role.ADMIN)
    assert "/sign-in/sso?next=" in client.get("/sign-in?next=/flow").text
    away = client.get("/sign-in/sso?next=/flow")
    asked = parse_qs(urlsplit(away.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"] and asked["nonce"] and asked["state"]
    back = client.get(sign_in_there(away.headers["location"], "ann"))
    assert (back.status_code, back.headers["location"]) == (303, "/flow")
    assert client.get("/users").status_code == 200
    with db.read() as session:
        ann = users.get_user(session, "ann")
        assert (ann.role, ann.password_hash, ann.site) == (Role.ADMIN, "", "")


def test_the_site_comes_from_its_claim_and_a_stranger_stays_outside(
    client: TestClient, db: Database, house: Settings, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    configure(house, monkeypatch, provider)
    client.get(sign_in_there(client.get("/sign-in/sso").headers["location"], "sam"))
    with db.read() as session:
        sam = users.get_user(session, "sam")
        assert (sam.role, sam.site) == (Role.SONOGRAPHER, "North")
    stranger = TestClient(client.app, follow_redirects=False)
    refused = stranger.get(sign_in_there(stranger.get("/sign-in/sso").headers["location"], "eve"))
    assert refused.status_code == 403 and "gives you no role" in refused.text


def come_back(client: TestClient, liar: forger.Forger):
    """Begin, let the forger sign, and come back."""
    asked = parse_qs(urlsplit(client.get("/sign-in/sso").headers["location"]).query)
    liar.nonce = asked["nonce"][0]
    return client.get(f"/sign-in/sso/back?code=c&state={asked['state'][0]}")


def test_what_the_forger_signs_truly_is_believed(
    client: TestClient, house: Settings, monkeypatch: pytest.MonkeyPatch, liar: forger.Forger, db: Database
) -> None:
    configure(house, monkeypatch, liar.issuer)
    assert come_back(client, liar).status_code == 303
    liar.key = liar.published = RSAKey.generate_key(2048, parameters={"kid": "two"}, auto_kid=False)
    assert come_back(client, liar).status_code == 303, "a new key is fetched"


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": ["sonomark", "another"]},
        {"iss": "https://another.example"},
        {"exp": 1},
        {"iat": 2**40},
        {"sub": None},
    ],
)
def test_claims_that_do_not_fit_are_refused(
    client: TestClient,
    house: Settings,
    monkeypatch: pytest.MonkeyPatch,
    liar: forger.Forger,
    db: Database,
    changes: dict[str, Any],
) -> None:
    configure(house, monkeypatch, liar.issuer)
    liar.changes = changes
    refused = come_back(client, liar)
    assert refused.status_code == 403 and "cannot be believed" in refused.text
    with db.read() as session:
        assert users.all_users(session) == []


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_tokens_that_nobody_signed_are_refused(
    client: TestClient,
    house: Settings,
    monkeypatch: pytest.MonkeyPatch,
    liar: forger.Forger,
    db: Database,
    algorithm: str,
) -> None:
    configure(house, monkeypatch, liar.issuer)
    liar.algorithm = algorithm
    assert come_back(client, liar).status_code == 403


def test_another_key_an_answer_to_nothing_and_a_false_name_are_refused(
    client: TestClient, house: Settings, monkeypatch: pytest.MonkeyPatch, liar: forger.Forger, db: Database
) -> None:
    configure(house, monkeypatch, liar.issuer)
    assert "not begun here" in client.get("/sign-in/sso/back?code=c&state=s").text
    asked = client.get("/sign-in/sso")
    assert asked.status_code == 303
    assert "another sign-in" in client.get("/sign-in/sso/back?code=c&state=guessed").text
    liar.key = RSAKey.generate_key(2048, parameters={"kid": "one"}, auto_kid=False)
    assert come_back(client, liar).status_code == 403
    sso.configured.cache_clear()
    liar.issuer_told = "https://another.example"
    assert client.get("/sign-in/sso").status_code in (500, 502)


def test_a_local_account_is_never_taken_over(
    client: TestClient, house: Settings, monkeypatch: pytest.MonkeyPatch, liar: forger.Forger, db: Database
) -> None:
    configure(house, monkeypatch, liar.issuer)
    with db.begin() as session:
        users.create_user(session, "ann", Role.VIEWER)
    refused = come_back(client, liar)
    assert refused.status_code == 403 and "local account ann" in refused.text


def test_a_group_that_is_taken_away_takes_the_role_away(
    client: TestClient, house: Settings, monkeypatch: pytest.MonkeyPatch, liar: forger.Forger, db: Database
) -> None:
    configure(house, monkeypatch, liar.issuer)
    come_back(client, liar)
    before = TestClient(client.app, cookies=client.cookies, follow_redirects=False)
    liar.changes = {"groups": ["staff"]}
    assert come_back(TestClient(client.app, follow_redirects=False), liar).status_code == 303
    assert before.get("/worklist").status_code == 303, "the session of the old role ended"
    with db.begin() as session:
        ann = users.get_user(session, "ann")
        assert ann.role is Role.VIEWER
        ann.disabled_at = users.now()
    assert come_back(TestClient(client.app, follow_redirects=False), liar).status_code == 403


def test_without_a_provider_there_is_no_button_and_an_absent_one_is_told(
    client: TestClient, house: Settings, monkeypatch: pytest.MonkeyPatch, db: Database
) -> None:
    assert client.get("/sign-in/sso").status_code == 404
    configure(house, monkeypatch, "http://127.0.0.1:9")
    away = client.get("/sign-in/sso")
    assert away.status_code == 502 and "does not answer" in away.text


def test_settings_that_make_no_sense_are_refused(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(house, monkeypatch, "http://provider.example")
    with pytest.raises(ConfigurationError, match="https"):
        sso.configured()
    configure(house, monkeypatch, "https://provider.example", oidc_roles="x=emperor")
    with pytest.raises(ConfigurationError, match="role"):
        sso.configured()
