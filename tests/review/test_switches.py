"""Pausing, draining, peers, models and the self-test's page."""

import html
import shutil
import tomllib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import tomli_w
from fastapi.testclient import TestClient

from service import __version__
from service.analyse.restoration import Card
from service.db import audit, heartbeats, peers, scores, switches
from service.db.peers import Tally
from service.db.session import Database
from service.db.tables import Instance, PeerActivity, Role, now
from service.errors import BrokerAway
from service.review import models
from service.settings import WEIGHTS, Settings
from tests.review import ward


@pytest.fixture
def admin(sign_in: Callable[..., TestClient]) -> TestClient:
    return sign_in(Role.ADMIN)


def test_a_pause_says_who_and_why_on_every_page(
    admin: TestClient, sign_in: Callable[..., TestClient], db: Database
) -> None:
    study = f"/studies/{ward.admit(db, 1)}"
    assert admin.post("/flow/switches/paused", data={"on": "true"}).status_code == 403
    assert admin.post("/flow/switches/paused", data={"on": "true", "reason": "new disk"}).status_code == 303
    for path in ("/flow", "/users", "/worklist"):
        page = admin.get(path).text
        assert "Work is paused" in page and "by admin: new disk" in page, path
    assert "by admin: new disk" in sign_in(Role.VIEWER).get(study).text
    with db.read() as session:
        assert switches.is_on(session, switches.PAUSED)
    admin.post("/flow/switches/paused", data={"on": "false"})
    assert "Work is paused" not in admin.get("/users").text
    with db.read() as session:
        assert [event.action for event in audit.search(session, action="switch.")] == ["switch.paused"] * 2
    assert admin.post("/flow/switches/network", data={"on": "true", "reason": "x"}).status_code == 422


def test_peers_are_added_checked_disabled_and_enabled(admin: TestClient, db: Database) -> None:
    assert "The door is open to all" in admin.get("/peers").text
    for bad in (
        {"ae_title": "", "address": ""},
        {"ae_title": "A" * 17},
        {"ae_title": "US@1"},
        {"ae_title": "US,1"},
        {"ae_title": "US1", "address": "nowhere"},
        {"ae_title": "US1", "address": "10.0.0.1", "port": "0"},
        {"ae_title": "US1", "address": "10.0.0.1", "port": "x"},
    ):
        assert admin.post("/peers", data=bad).status_code == 422, bad
    good = {"ae_title": "US1", "address": "127.0.0.1", "port": "1", "description": "Room 4"}
    refused = admin.post("/peers", data=good)
    assert refused.status_code == 422 and "closes to everybody else" in refused.text and "Room 4" in refused.text
    assert admin.post("/peers", data={**good, "closes": "true"}).status_code == 303
    assert "is there already" in admin.post("/peers", data=good).text
    page = admin.get("/peers").text
    assert "Room 4" in page and "1 listed peer and nobody else" in page
    told = admin.post("/peers/1/echo", headers={"HX-Request": "true"}).text
    assert "refuses the connection" in told and "<html" not in told
    with db.read() as session:
        moved = {"address": "10.0.0.7", "version": peers.version(peers.get(session, 1))}
    assert admin.post("/peers/1", data=moved).status_code == 303
    refused = admin.post("/peers/1/disable")
    assert refused.status_code == 422 and "the last one let in" in refused.text, "the page was loaded before it was"
    admin.post("/peers/1/disable", data={"closes": "true"})
    with db.read() as session:
        assert peers.let_in(session) == []
    admin.post("/peers/1/enable")
    with db.read() as session:
        assert [peer.address for peer in peers.let_in(session)] == ["10.0.0.7"]
        actions = [event.action for event in audit.search(session, action="peer.")]
    assert actions == ["peer.enable", "peer.disable", "peer.edit", "peer.echo", "peer.add"]


def test_who_has_sent_is_let_in_with_the_first_peer(admin: TestClient, db: Database) -> None:
    with db.begin() as session:
        peers.note(session, "US07", "10.0.0.7", Tally(stored=30))
        peers.note(session, "US08", "10.0.0.8", Tally(refused=3))
        peers.note(session, "SONOMARK_TEST", "127.0.0.1", Tally(stored=1))
    page = admin.get("/peers").text
    assert "within two weeks: US07 at 10.0.0.7</label>" in page
    assert admin.post("/peers", data={"ae_title": "PACS", "closes": "true", "senders": "true"}).status_code == 303
    with db.read() as session:
        assert [(peer.ae_title, peer.address) for peer in peers.let_in(session)] == [("PACS", ""), ("US07", "10.0.0.7")]


def test_who_has_sent_and_is_let_in_by_the_first_peer_gets_no_entry_beside_it(admin: TestClient, db: Database) -> None:
    """It would be the closer one, and know nothing of the options of the first."""
    with db.begin() as session:
        for number in (7, 8):
            peers.note(session, "US07", f"10.0.0.{number}", Tally(stored=30))
        peers.note(session, "US07", "10.1.0.7", Tally(stored=30))
    first = {"ae_title": "US07", "address": "10.0.0.0/24", "tls": "required", "closes": "true", "senders": "true"}
    assert admin.post("/peers", data=first).status_code == 303
    with db.read() as session:
        found = [(peer.address, peer.tls) for peer in peers.let_in(session)]
    assert sorted(found) == [("10.0.0.0/24", "required"), ("10.1.0.7", "optional")]


def test_a_door_whose_last_peer_is_disabled_is_closed_and_says_so(admin: TestClient, db: Database) -> None:
    for peer in (
        {"ae_title": "US1", "address": "10.0.0.1", "closes": "true"},
        {"ae_title": "US1", "address": "10.0.0.2"},
    ):
        assert admin.post("/peers", data=peer).status_code == 303
    page = admin.get("/peers").text
    assert "10.0.0.1" in page and "10.0.0.2" in page, "each entry of an AE title has its row"
    assert "the last one let in" not in page
    admin.post("/peers/1/disable")
    assert "the last one let in" in admin.get("/peers").text
    assert admin.post("/peers/open", data={"reason": "x"}).status_code == 409
    admin.post("/peers/2/disable", data={"closes": "true"})
    page = admin.get("/peers").text
    assert "The door is closed: nobody may send" in page and "open to all" not in page.lower().replace(
        "open to all<", ""
    )
    with db.read() as session:
        door = peers.door(session, "")
        assert door.closed and peers.closes(session)
    assert admin.post("/peers/open", data={"reason": " "}).status_code == 422
    assert admin.post("/peers/open", data={"reason": "new carts today"}).status_code == 303
    page = admin.get("/peers").text
    assert "The door is open to all" in page and "by admin: new carts today" in page
    with db.read() as session:
        assert peers.door(session, "").open_to_all and not peers.closes(session)
    admin.post("/peers/2/enable")
    with db.read() as session:
        assert not peers.door(session, "").open_to_all and not switches.is_on(session, switches.OPEN)
        actions = [event.action for event in audit.search(session, action="peer.")]
    assert actions[:2] == ["peer.enable", "peer.open"]


def test_the_door_is_what_the_receiver_says_it_is(admin: TestClient, db: Database) -> None:
    """In containers the dashboard does not have the receiver's settings."""
    assert "No receiver is alive" in admin.get("/peers").text
    with db.begin() as session:
        heartbeats.beat(session, "receive", {"suspended": "", "peers": ["US01@10.1.4.13/32"]})
    page = admin.get("/peers").text
    assert "1 listed peer and nobody else" in page and "US01@10.1.4.13/32" in page
    assert "No receiver" not in page and "open to all" not in page


def test_a_station_that_fell_quiet_is_marked(admin: TestClient, db: Database) -> None:
    uids = [ward.admit(db, number) for number in range(1, 3)]
    with db.begin() as session:
        first = session.get_one(Instance, 1)
        for number in range(30):
            copy = {
                column.name: getattr(first, column.name)
                for column in Instance.__table__.columns
                if column.name not in ("id", "sop_instance_uid", "calling_ae_title", "received_at")
            }
            at = now() - timedelta(days=3, minutes=10 * number)
            session.add(Instance(**copy, sop_instance_uid=f"9.{number}", calling_ae_title="US07", received_at=at))
        peers.note(session, "US07", "10.0.0.7", Tally(stored=30, refused=10, last_refusal="too many associations"))
        session.flush()
        session.get_one(PeerActivity, ("US07", "10.0.0.7")).last_seen_at = now() - timedelta(days=3)
    assert uids
    page = admin.get("/peers").text
    assert "quiet for 3 days" in page and "25.0 %" in page and "too many associations, from 10.0.0.7" in page


def test_weights_are_compared_and_put_in_use(admin: TestClient, db: Database, house: Settings) -> None:
    copied = house.data_dir / "weights" / "older"
    shutil.copytree(WEIGHTS / "sonomark", copied)
    card = (copied / "card.toml").read_text().replace('version = "', 'version = "older-', 1)
    card = card.replace("pixel = 0.3", "pixel = 0.31")  # the same weights, read otherwise
    (copied / "card.toml").write_text(card)
    graph = (copied / "model.onnx").read_bytes()
    page = admin.get("/models").text
    assert "in use" in page and "AUROC" in page and "read by other thresholds" in page
    activation = admin.get("/models/older/activate")
    assert activation.status_code == 200 and "older-" in activation.text
    version = next(line.split('"')[1] for line in card.splitlines() if line.startswith("version"))
    asked = {"typed": version, "reason": "roll back"}
    assert admin.post("/models/older/activate", data={**asked, "typed": "no"}).status_code == 422
    (copied / "model.onnx").write_bytes(graph[:-1] + bytes([graph[-1] ^ 1]))
    refused = admin.post("/models/older/activate", data=asked)
    assert refused.status_code == 422, "changed bytes are refused (W12)"
    assert "not those their card describes" in refused.text and "copy model.onnx and card.toml" in refused.text
    assert 'value="roll back"' in refused.text, "what was typed is kept"
    (copied / "model.onnx").write_bytes(graph)
    models.read.cache_clear()
    (copied / "card.toml").write_text("second_look = 2.0\n" + card.replace("second_look = ", "was = ", 1))
    listed = admin.get("/models").text
    assert "second_look is 2.0 and must be" in listed and "/models/older/activate" not in listed
    (copied / "card.toml").write_text(card.replace("pixel = 0.31", 'pixel = "x"'))
    unreadable = admin.post("/models/older/activate", data=asked)
    assert unreadable.status_code == 422, "workers could not read with such a card"
    assert ".pixel is &#39;x&#39; and must be a number" in unreadable.text
    models.read.cache_clear()
    (copied / "card.toml").write_text(card)
    assert admin.post("/models/older/activate", data=asked).status_code == 303
    with db.read() as session:
        assert switches.network(session) == "older"
    with db.begin() as session:
        heartbeats.beat(session, "work", {"network": Card.read(copied / "card.toml").identity, "thresholds": "other"})
    page = admin.get("/models").text
    assert "by admin: roll back" in page and "folder <strong>older</strong>" in page
    assert "/models/sonomark/activate" in page, "the way back, though it is the same weights"
    assert "takes it with its next image" in page
    with db.begin() as session:
        card_ = Card.read(copied / "card.toml")
        heartbeats.beat(session, "work", {"network": f"{card_.identity}+int8", "thresholds": card_.digest})
    assert "has it" in admin.get("/models").text
    assert admin.post("/models/of-settings", data={"reason": ""}).status_code == 422
    assert admin.post("/models/of-settings", data={"reason": "back"}).status_code == 303
    page = admin.get("/models").text
    assert "Named by the setting NETWORK" in page and "/models/of-settings" not in page
    with db.read() as session:
        assert switches.network(session) == ""
        actions = [event.action for event in audit.search(session, action="network.")]
    assert actions == ["network.activate"] * 2
    for name in ("..", "%2e%2e", "nothing"):
        assert admin.get(f"/models/{name}/activate").status_code == 404


def test_the_stability_index_is_the_textbooks() -> None:
    flat = [(number + 0.5) / 1000 for number in range(1000)]
    assert scores.stability_index(flat, flat) == 0
    half = [value / 2 for value in flat]
    assert scores.stability_index(flat, half) > scores.SHIFTED
    assert scores.stability_index(flat, half) == pytest.approx(scores.stability_index(half, flat))


def test_the_self_test_page_shows_steps_and_lets_one_run_at_a_time(
    admin: TestClient, db: Database, house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "dicom_port", 1)  # nobody listens there
    assert "No self-test was run yet" in admin.get("/self-test").text
    assert admin.post("/self-test").status_code == 303
    for _ in range(100):
        page = admin.get("/self-test").text
        if "failed" in page:
            break
    assert "does not accept an association" in page and "What to do" in page


def test_the_self_test_page_says_what_the_house_stands_on(
    admin: TestClient, db: Database, house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "broker_url", "redis://127.0.0.1:1/0")  # nobody listens there
    page = admin.get("/self-test").text
    assert 'hx-get="/self-test?machine=true"' in page and "not well" not in page, (
        "who is away does not hold the page up"
    )
    shown = admin.get("/self-test?machine=true").text
    for answer in (f"Sonomark {__version__}", "GB free", "one machine, one clock", "certificates"):
        assert answer in shown
    assert "The broker does not answer" in shown and html.escape(BrokerAway.cure) in shown
    fragment = admin.get("/self-test?machine=true", headers={"HX-Request": "true"}).text
    assert fragment.startswith("<section") and "hx-trigger" not in fragment and "BROKER_URL" in fragment


def test_models_reads_only_folders_of_weights(house: Settings, admin: TestClient, db: Database) -> None:
    (Path(house.data_dir) / "weights" / "broken").mkdir(parents=True)
    (Path(house.data_dir) / "weights" / "broken" / "card.toml").write_text("name = 1")
    assert admin.get("/models").status_code == 200


def test_weights_of_a_hospitals_own_frames_have_their_page(house: Settings, admin: TestClient, db: Database) -> None:
    """Adapted weights have no figures until they are evaluated, and frames of one's own no licence."""
    own = house.data_dir / "weights" / "sonomark"
    shutil.copytree(WEIGHTS / "sonomark", own)
    card = tomllib.loads((own / "card.toml").read_text())
    card |= {"data": [{"source": "Ward 3", "training": 26, "validation": 1}], "metrics": {}, "version": "own"}
    (own / "card.toml").write_text(tomli_w.dumps(card))
    page = admin.get("/models")
    assert page.status_code == 200 and "Ward 3" in page.text
    assert admin.get("/models/sonomark/activate").status_code == 200
