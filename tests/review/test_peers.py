"""Options of peers on their page: entered, changed, told, and refused where they cannot be."""

import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from service.db import audit, heartbeats, peers
from service.db.session import Database
from service.db.tables import Role
from service.dicom.character_sets import DEFINED_TERMS
from service.settings import Settings
from tests.receive.test_tls import DAY, Authority

OPTIONS = {
    "reports": "same",
    "tls": "required",
    "certificate": "us01.example",
    "character_set": "\\ISO 2022 IR 87",
    "priority": "-5",
    "max_associations": "2",
}
KEPT: dict[str, Any] = OPTIONS | {"priority": -5, "max_associations": 2}


@pytest.fixture
def admin(sign_in: Callable[..., TestClient]) -> TestClient:
    return sign_in(Role.ADMIN)


def form_of(page: str) -> dict[str, str]:
    """What a browser would send of the peer's form as it stands there."""
    form = page[page.index('<section id="form"') :]
    form = form[: form.index("</form>")]
    fields = {
        name.group(1): value.group(1) if (value := re.search(r'value="([^"]*)"', tag)) else ""
        for tag in re.findall(r"<input [^>]*>", form)
        if (name := re.search(r'name="(\w+)"', tag)) and "checkbox" not in tag
    }
    for select in re.findall(r"<select .*?</select>", form, re.DOTALL):
        name, chosen = re.search(r'name="(\w+)"', select), re.search(r'value="([^"]*)" selected', select)
        assert name
        fields[name.group(1)] = chosen.group(1) if chosen else ""
    return fields


def test_two_fields_are_enough_and_the_rest_is_as_usual(admin: TestClient, db: Database) -> None:
    entered = form_of(admin.get("/peers").text) | {"ae_title": "US01", "address": "10.1.4.13", "closes": "true"}
    assert admin.post("/peers", data=entered).status_code == 303
    with db.read() as session:
        [peer] = peers.let_in(session)
        assert peers.unusual(peer) == {} and peer.port is None
        [event] = audit.search(session, action="peer.add")
    assert event.detail == {"address": "10.1.4.13", "port": None}
    page = admin.get("/peers").text
    assert 'class="differs"' not in page
    assert '<details class="options whole-line"><summary>' in page, "folded away"


def test_options_are_entered_shown_changed_and_written_down(admin: TestClient, db: Database) -> None:
    entered = {"ae_title": "US01", "address": "10.1.4.0/24", "port": "4242", "closes": "true", **OPTIONS}
    assert admin.post("/peers", data=entered).status_code == 303
    with db.read() as session:
        [peer] = peers.let_in(session)
        assert peers.unusual(peer) == KEPT and peer.port == 4242
        [event] = audit.search(session, action="peer.add")
    assert event.detail == {"address": "10.1.4.0/24", "port": 4242, **KEPT}
    page = admin.get("/peers").text
    for told in ("must use TLS", "us01.example", "Japanese: kanji", "priority -5", "at most 2 associations", "reports"):
        assert told in page[page.index('class="differs"') :], told
    assert "no one address" in page, "whom should it ask for an echo?"

    form = form_of(admin.get("/peers?edit=1").text)
    assert {name: form[name] for name in OPTIONS} == OPTIONS and form["port"] == "4242"
    assert admin.post("/peers/1", data=form).status_code == 303
    changed = form | {"tls": "optional", "certificate": "", "priority": ""}
    assert admin.post("/peers/1", data=changed).status_code == 303
    with db.read() as session:
        [peer] = peers.let_in(session)
        assert peers.unusual(peer).keys() == {"reports", "character_set", "max_associations"}
        [event] = audit.search(session, action="peer.edit")
    assert event.detail["changed"] == {
        "tls": ["required", "optional"],
        "certificate": ["us01.example", ""],
        "priority": [-5, 0],
    }, "one event: the first changed nothing"


@pytest.mark.parametrize("number", [None, 1])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"port": "104a"}, "number from 1 to 65535"),
        ({"port": "0"}, "number from 1 to 65535"),
        ({"certificate": ".example"}, "cannot be the name of a certificate"),
        ({"certificate": "a" * 64 + ".example"}, "cannot be the name of a certificate"),
        ({"certificate": "us\x0701"}, "cannot be the name of a certificate"),
        ({"character_set": "KLINGON"}, "none of the character sets"),
        ({"priority": "101"}, "whole number from -100 to 100"),
        ({"priority": "high"}, "whole number from -100 to 100"),
        ({"priority": "٣"}, "whole number from -100 to 100"),
        ({"max_associations": "0"}, "number from 1 to 10,000"),
        ({"max_associations": "99999"}, "number from 1 to 10,000"),
        ({"address": "10.1.4"}, "no IP address"),
    ],
)
def test_what_cannot_be_is_told_at_its_field_and_kept(
    admin: TestClient, db: Database, wrong: dict[str, str], told: str, number: int | None
) -> None:
    with db.begin() as session:
        version = peers.version(peers.add(session, "US01", "10.1.4.13", None, "", "admin"))
    [(field, value)] = wrong.items()
    entered = {"ae_title": "US02", "address": "10.1.4.14", "description": "Room 4", "version": version} | wrong
    refused = admin.post("/peers" if number is None else f"/peers/{number}", data=entered)
    assert refused.status_code == 422
    assert refused.text.count(told) == 2, "above, and at the field"
    assert f'href="#{field}"' in refused.text
    again = form_of(refused.text)
    assert again["description"] == "Room 4"
    assert field == "character_set" or again[field] == value
    assert ('class="options whole-line" open' in refused.text) == (field not in ("address",))
    with db.read() as session:
        assert [(peer.ae_title, peer.address) for peer in peers.let_in(session)] == [("US01", "10.1.4.13")]
        assert audit.search(session, action="peer.") == []


@pytest.mark.parametrize("wrong", [{"tls": "perhaps"}, {"reports": "never"}])
def test_what_no_form_sends_is_refused(admin: TestClient, db: Database, wrong: dict[str, str]) -> None:
    assert admin.post("/peers", data={"ae_title": "US02", "closes": "true"} | wrong).status_code == 422
    with db.read() as session:
        assert peers.let_in(session) == []


def test_who_saves_after_another_is_told_first(admin: TestClient, db: Database) -> None:
    with db.begin() as session:
        peers.add(session, "US01", "10.1.4.13", None, "", "admin")
    form = form_of(admin.get("/peers?edit=1").text)
    assert admin.post("/peers/1", data=form | {"tls": "required"}).status_code == 303
    late = admin.post("/peers/1", data=form | {"description": "Room 4"})
    assert late.status_code == 409 and "was changed since this form was made" in late.text
    again = form_of(late.text)
    assert again["description"] == "Room 4" and again["tls"] == "optional", "what was typed is kept"
    with db.read() as session:
        assert peers.unusual(peers.get(session, 1)) == {"tls": "required"}
    assert admin.post("/peers/1", data=again).status_code == 303, "and may be meant"
    with db.read() as session:
        assert peers.unusual(peers.get(session, 1)) == {}


def test_an_address_that_another_entry_has_is_refused(admin: TestClient, db: Database) -> None:
    with db.begin() as session:
        peers.add(session, "US01", "10.1.4.13", None, "", "admin")
        peers.add(session, "US01", "10.1.4.14", None, "", "admin")
    form = form_of(admin.get("/peers?edit=2").text)
    refused = admin.post("/peers/2", data=form | {"address": "10.1.4.13"})
    assert refused.status_code == 409 and "is there already" in refused.text
    assert admin.get("/peers?edit=3").status_code == 404


def test_every_character_set_of_the_list_may_be_chosen(admin: TestClient, db: Database) -> None:
    with db.begin() as session:
        peers.add(session, "US01", "10.1.4.13", None, "", "admin", character_set="cp1252")  # by another hand
    form = form_of(admin.get("/peers?edit=1").text)
    assert form["character_set"] == "cp1252", "what is not offered is shown all the same"
    assert admin.post("/peers/1", data=form | {"description": "Room 4"}).status_code == 303
    for term in DEFINED_TERMS:
        form = form_of(admin.get("/peers?edit=1").text)
        assert admin.post("/peers/1", data=form | {"character_set": term}).status_code == 303
        with db.read() as session:
            assert peers.get(session, 1).character_set == term


def test_the_page_says_who_is_turned_away_whatever_it_does(admin: TestClient, db: Database) -> None:
    with db.begin() as session:
        peers.add(session, "US01", "10.1.4.13", None, "", "admin", tls="required")
        peers.add(session, "US02", "10.1.4.14", None, "", "admin", certificate="us02.example")
    said = {}
    for tls in ("none", "server", "mutual"):
        with db.begin() as session:
            heartbeats.beat(session, "receive", {"suspended": "", "peers": ["US01@10.1.0.0/16"], "tls": tls})
        page = admin.get("/peers").text
        said[tls] = ("No receiver speaks TLS: it" in page, "No receiver asks for certificates: it" in page)
    assert said == {"none": (True, True), "server": (False, True), "mutual": (False, False)}
    assert admin.get("/peers").text.count("The settings list this title too") == 1


@pytest.fixture
def cart(tmp_path: Path) -> Iterator[tuple[int, Authority]]:
    """A peer that answers C-ECHO by TLS alone, with a certificate of the authority: its port."""
    authority = Authority(tmp_path)
    own = authority.issue_for("us01.example", -DAY, DAY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    ae = AE("US01")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False, ssl_context=context)
    yield server.server_address[1], authority
    server.shutdown()


def test_who_must_use_tls_is_asked_for_an_echo_by_tls(
    admin: TestClient, db: Database, house: Settings, monkeypatch: pytest.MonkeyPatch, cart: tuple[int, Authority]
) -> None:
    port, authority = cart
    with db.begin() as session:
        number = peers.add(
            session, "US01", "127.0.0.1", port, "", "admin", tls="required", certificate="us01.example"
        ).id

    def echo() -> str:
        return admin.post(f"/peers/{number}/echo", headers={"HX-Request": "true"}).text

    assert "the dashboard has no certificate to call it with" in echo()
    own = authority.issue("server")
    monkeypatch.setattr(house, "dicom_certificate", own.certificate)
    monkeypatch.setattr(house, "dicom_private_key", own.key)
    monkeypatch.setattr(house, "dicom_client_ca", authority.pair.certificate)
    assert "✓" in echo()
    with db.begin() as session:
        peers.change(session, peers.get(session, number), {"certificate": "us02.example"})
    assert "that it speaks TLS there, and its certificate" in echo()
    monkeypatch.setattr(house, "dicom_certificate", Path("/nowhere.pem"))
    assert "The certificate of the DICOM port cannot be used" in echo()
