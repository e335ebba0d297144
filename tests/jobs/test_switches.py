"""What administrators set is honoured by real workers and a real door, without a restart."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.db import peers, switches
from service.db.session import Database, database
from service.db.tables import Analysis, AnalysisState
from service.receive.peers import Peers, Register
from service.settings import settings
from tests.tiny_network import write_weights
from tests.working_house import WorkingHouse

Make = Callable[..., WorkingHouse]
Ultrasound = Callable[..., Path]


def test_work_is_paused_and_goes_on(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    house.start("work")
    house.start("sweep")
    house.wait([house.store(ultrasound("before"))])
    with database().begin() as session:
        switches.turn_on(session, switches.PAUSED, "boss", "a test")
    waits = house.store(ultrasound("while"))
    time.sleep(1.5)
    with database().read() as session:
        assert session.get_one(Analysis, waits).state is AnalysisState.QUEUED
    with database().begin() as session:
        switches.turn_off(session, switches.PAUSED)
    assert house.wait([waits])[0].state is AnalysisState.DONE


def test_another_network_is_taken_with_the_next_instance_and_a_missing_one_stops_the_line(
    make_house: Make, ultrasound: Ultrasound
) -> None:
    house = make_house()
    write_weights(settings().data_dir / "weights" / "newer", name="newer")
    house.start("work")
    house.start("sweep")
    assert house.wait([house.store(ultrasound("one"))])[0].network.startswith("tiny@")
    with database().begin() as session:
        switches.turn_on(session, switches.NETWORK, "boss", "a test", {"name": "newer"})
    assert house.wait([house.store(ultrasound("two"))])[0].network.startswith("newer@")
    with database().begin() as session:
        switches.turn_on(session, switches.NETWORK, "boss", "a test", {"name": "missing"})
    waits = house.store(ultrasound("three"))
    time.sleep(1.5)
    with database().read() as session:
        assert session.get_one(Analysis, waits).state is AnalysisState.QUEUED, "kept, not given up"
    with database().begin() as session:
        switches.turn_off(session, switches.NETWORK)
    assert house.wait([waits])[0].network.startswith("tiny@")


def test_the_door_asks_the_database_whom_to_let_in(
    db: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.receive.peers.REFRESH_S", 0.0)
    register = Register(Peers.parse(""), db)
    assert register.open_to_all and register.allows("ANY", "10.9.9.9") and not register.draining
    with db.begin() as session:
        peer = peers.add(session, "US07", "10.1.4.0/24", None, "", "boss")
    assert not register.open_to_all
    assert register.allows("US07", "10.1.4.9") and not register.allows("US07", "10.1.5.9")
    assert register.allows("SONOMARK_TEST", "127.0.0.1") and not register.allows("SONOMARK_TEST", "10.1.4.9")
    with db.begin() as session:
        peers.get(session, peer.id).disabled_at = peer.created_at
        switches.turn_on(session, switches.DRAINING, "boss", "a test")
    assert register.draining
    assert not register.open_to_all, "disabling the last peer opens the door to nobody"
    assert not register.allows("US07", "10.1.4.9")
    with db.begin() as session:
        switches.turn_on(session, switches.OPEN, "boss", "a test")
    assert register.allows("ANY", "10.9.9.9"), "an administrator's own word does"
    said = capsys.readouterr()
    told = [line for line in (said.out + said.err).splitlines() if "may send" in line or "CLOSED" in line]
    assert [("OPEN" in line, "listed" in line, "CLOSED" in line) for line in told] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (True, False, False),
    ]
