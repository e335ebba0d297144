"""Peers that administrators enter, with their options, on SQLite and PostgreSQL."""

import pytest

from service.db import peers
from service.db.session import Database
from service.db.tables import Heartbeat, now
from service.errors import Conflict
from service.receive import peers as receiver

ALL = {
    "reports": "same",
    "tls": "required",
    "certificate": "us01.example",
    "character_set": "\\ISO 2022 IR 87",
    "priority": -5,
    "max_associations": 2,
}


def test_the_usual_is_what_the_receiver_takes_for_it(any_db: Database) -> None:
    usual = receiver.Peer(ae_title="US01").model_dump(exclude={"ae_title", "address", "port"})
    assert usual == peers.OPTIONS
    with any_db.begin() as session:
        assert peers.unusual(peers.add(session, "US01", "", None, "", "admin")) == {}


def test_options_are_kept_and_a_change_is_told(any_db: Database) -> None:
    with any_db.begin() as session:
        peers.add(session, "US01", "10.1.4.13", 104, "", "admin", **ALL)
    with any_db.begin() as session:
        [peer] = peers.let_in(session)
        assert peers.unusual(peer) == ALL
        before = peers.version(peer)
        assert peers.change(session, peer, ALL) == {} and peers.version(peer) == before
        told = peers.change(session, peer, ALL | {"tls": "optional", "port": None, "priority": 0})
        assert told == {"tls": ["required", "optional"], "port": [104, None], "priority": [-5, 0]}
        assert peers.version(peer) != before
    with any_db.read() as session:
        assert peers.unusual(peers.get(session, 1)).keys() == ALL.keys() - {"tls", "priority"}


def test_two_entries_of_one_title_cannot_stand_at_one_address(any_db: Database) -> None:
    with any_db.begin() as session:
        peers.add(session, "US01", "10.1.4.13", None, "", "admin")
        other = peers.add(session, "US01", "10.1.4.14", None, "", "admin")
        with pytest.raises(Conflict, match="is there already"):
            peers.change(session, other, {"address": "10.1.4.13"})
        assert other.address == "10.1.4.14"


@pytest.mark.parametrize(
    ("spoken", "knows_no_tls", "asks_for_no_certificates"),
    [
        ([], False, False),
        ([None], False, False),  # of before it was told
        (["none"], True, True),
        (["none", "server"], False, True),
        (["server"], False, True),
        (["server", "mutual"], False, False),
    ],
)
def test_the_door_says_what_tls_its_receivers_speak(
    any_db: Database, spoken: list[str | None], knows_no_tls: bool, asks_for_no_certificates: bool
) -> None:
    with any_db.begin() as session:
        for number, tls in enumerate(spoken):
            detail = {"peers": ["US01@10.1.4.13/32"]} | ({} if tls is None else {"tls": tls})
            session.add(Heartbeat(role="receive", process=f"one:{number}", at=now(), detail=detail))
        door = peers.door(session, "")
    assert (door.knows_no_tls, door.asks_for_no_certificates) == (knows_no_tls, asks_for_no_certificates)
    assert door.settings_list("US01") == bool(spoken) and not door.settings_list("US0")
