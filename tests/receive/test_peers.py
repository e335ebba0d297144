"""Peers that administrators entered: a real receiver takes their options, and no row of them shuts the door."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from service.db import peers
from service.db.session import Database
from service.db.tables import Peer as PeerRow
from service.receive.peers import Peer, Peers, Register
from service.receive.status import Status
from tests.ports import free_port
from tests.receive.conftest import US_IMAGE, StartReceiver, instances, ultrasound
from tests.receive.test_commitment import Cart, ask

OPTIONS: dict[str, Any] = {
    "reports": "same",
    "tls": "required",
    "certificate": "us01.example",
    "character_set": "GB18030",
    "priority": -5,
    "max_associations": 2,
}


def entered(db: Database, title: str, address: str = "", port: int | None = None, **options: Any) -> int:
    with db.begin() as session:
        return peers.add(session, title, address, port, "", "admin", **options).id


@pytest.fixture
def register(db: Database, monkeypatch: pytest.MonkeyPatch) -> Register:
    monkeypatch.setattr("service.receive.peers.REFRESH_S", 0.0)
    return Register(Peers.parse(""), db)


def test_every_option_reaches_the_door(db: Database, register: Register) -> None:
    entered(db, "US01", "10.1.4.13", 4242, **OPTIONS)
    entered(db, "US02")
    peer = register.of("US01", "10.1.4.13")
    assert peer.model_dump(exclude={"address"}) == {"ae_title": "US01", "port": 4242, **OPTIONS}
    assert register.of("US02", "10.9.9.9") == Peer(ae_title="US02")


def test_the_closest_address_says_which_options_hold(db: Database, register: Register) -> None:
    entered(db, "US01", priority=1)
    entered(db, "US01", "10.1.4.13", priority=3)
    entered(db, "US01", "10.1.0.0/16", priority=2)
    found = [register.of("US01", address).priority for address in ("192.0.2.1", "10.1.4.14", "10.1.4.13")]
    assert found == [1, 2, 3]


def test_the_settings_hold_before_what_is_entered(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.receive.peers.REFRESH_S", 0.0)
    register = Register(Peers.parse("US01@10.1.0.0/16;priority=7"), db)
    entered(db, "US01", "10.1.4.13", priority=3)
    assert register.of("US01", "10.1.4.13").priority == 7


@pytest.mark.parametrize(
    ("column", "value", "holds"),
    [
        ("port", 99_999, 104),
        ("reports", "carrier pigeon", "new"),
        ("tls", "mutual", "required"),  # whatever it is, it is no less
        ("character_set", "KLINGON", ""),
        ("priority", 5_000, 0),
        ("max_associations", -1, 0),
    ],
)
def test_an_option_that_cannot_be_shuts_nobody_out(
    db: Database, register: Register, capsys: pytest.CaptureFixture[str], column: str, value: Any, holds: Any
) -> None:
    """As when somebody wrote it by hand, or newer code that knows it runs beside this."""
    number = entered(db, "US01", "10.1.4.13", **({} if column == "priority" else {"priority": -5}))
    entered(db, "US02")
    with db.begin() as session:
        setattr(session.get_one(PeerRow, number), column, value)
    for _ in range(3):
        assert register.allows("US01", "10.1.4.13") and register.allows("US02", "10.9.9.9")
    peer = register.of("US01", "10.1.4.13")
    assert getattr(peer, column) == holds
    assert column == "priority" or peer.priority == -5, "the others hold"
    said = capsys.readouterr()
    told = [line for line in (said.out + said.err).splitlines() if "as none can be" in line]
    assert len(told) == 1 and "US01@10.1.4.13" in told[0] and column in told[0], "once, and not at every look"


@pytest.mark.parametrize("wrong", [{"address": "nowhere"}, {"address": "10.1.4.0/99"}, {"ae_title": ""}])
def test_a_row_without_title_or_address_lets_nobody_in_and_no_other_out(
    db: Database, register: Register, wrong: dict[str, str]
) -> None:
    number = entered(db, "US01", "10.1.4.13")
    with db.begin() as session:
        for column, value in wrong.items():
            setattr(session.get_one(PeerRow, number), column, value)
    assert not register.open_to_all and not register.allows("US01", "10.1.4.13")
    entered(db, "US02")
    assert register.allows("US02", "10.9.9.9")


def test_a_real_receiver_reads_by_them(start_receiver: StartReceiver, db: Database) -> None:
    """And takes a change while it runs."""
    entered(db, "US01", character_set="GB18030", priority=-5)
    number = entered(db, "US02")
    receiver = start_receiver()
    name = "王^小东"

    def send(title: str) -> tuple[str, int]:
        dataset = ultrasound(SpecificCharacterSet="ISO_IR 100")
        dataset.PatientName = name.encode("gb18030")
        assert receiver.store(dataset, ae_title=title) == [Status.SUCCESS]
        row = instances(db)[-1]
        return row.study.patient_name, row.analyses[0].priority

    assert send("US01") == (name, -5)
    shown, priority = send("US02")
    assert shown != name and priority == 0
    with db.begin() as session:
        peers.change(session, peers.get(session, number), {"character_set": "GBK", "priority": 3})
    until(lambda: send("US02") == (name, 3))


def test_a_real_receiver_seats_no_more_than_its_limit(start_receiver: StartReceiver, db: Database) -> None:
    entered(db, "US01", max_associations=1)
    receiver = start_receiver()
    first = receiver.associate(ae_title="US01")
    assert first.is_established
    assert receiver.associate(ae_title="US01").is_rejected
    receiver.wait_for("too many associations of this peer")
    first.release()
    until(lambda: receiver.associate(ae_title="US01").is_established)


def test_reports_go_to_the_port_that_was_entered(start_receiver: StartReceiver, db: Database) -> None:
    """Also where a network was: they go to whoever of it asked."""
    cart = Cart(free_port()).listen()
    try:
        entered(db, "US01", "127.0.0.0/8", cart.port)
        receiver = start_receiver()
        assert ask(receiver, [(US_IMAGE, "1.2.3")]) == Status.SUCCESS
        assert cart.report()[0] == 2
    finally:
        cart.stop()


def test_reports_come_on_the_association_that_asks(start_receiver: StartReceiver, db: Database) -> None:
    cart = Cart(free_port())  # which does not listen
    entered(db, "US01", "127.0.0.1", reports="same")
    receiver = start_receiver()
    assert ask(receiver, [(US_IMAGE, "1.2.3")], cart, hold_s=20) == Status.SUCCESS
    assert cart.report()[0] == 2


def test_no_report_goes_in_the_clear_to_a_peer_that_must_use_tls(start_receiver: StartReceiver, db: Database) -> None:
    """Also where it asked before that was entered, of a receiver that has no certificate."""
    cart = Cart(free_port())
    number = entered(db, "US01", "127.0.0.1", cart.port)
    receiver = start_receiver()
    assert ask(receiver, [(US_IMAGE, "1.2.3")]) == Status.SUCCESS
    receiver.wait_for("takes no association")
    with db.begin() as session:
        peers.change(session, peers.get(session, number), {"tls": "required"})
    cart.listen()
    try:
        receiver.wait_for("must use TLS, and the receiver has no certificate")
        assert not cart.heard
    finally:
        cart.stop()


def until(true: Callable[[], bool], within_s: float = 15) -> None:
    """What is entered reaches the door within three seconds."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)
