"""The door's pure parts: peers, contexts, statuses, UIDs."""

from pathlib import Path

import pytest

from service.errors import (
    ConfigurationError,
    DatabaseAway,
    DataSetMismatch,
    NotAllowed,
    NotDicom,
    OutOfSpace,
    StorageError,
)
from service.receive.contexts import TRANSFER_SYNTAXES, storage_classes, supported
from service.receive.intake import require_uid
from service.receive.peers import Peer, Peers
from service.receive.seats import Seats, Tally
from service.receive.status import Status, answer


def test_peers_are_read_with_addresses_and_networks() -> None:
    peers = Peers.parse("US01@10.1.4.13, US02@10.1.0.0/16,PACS,V6@fe80::1")
    assert not peers.open_to_all
    assert peers.allows("US01", "10.1.4.13")
    assert not peers.allows("US01", "10.1.4.14")
    assert peers.allows("US02", "10.1.200.7")
    assert peers.allows("PACS", "192.0.2.1")
    assert peers.allows("V6", "fe80::1")
    assert not peers.allows("V6", "10.1.4.13")
    assert not peers.allows("us01", "10.1.4.13")
    assert peers.knows("US02")
    assert not peers.knows("X")


def test_peers_have_options() -> None:
    peers = Peers.parse("US01@10.1.4.13;port=4242;tls=required;character_set=GB18030;priority=-5, PACS;reports=same")
    first, second = peers.allowed
    assert (first.port, first.tls, first.character_set, first.priority) == (4242, "required", "GB18030", -5)
    assert (second.port, second.tls, second.reports, second.max_associations) == (104, "optional", "same", 0)
    assert peers.of("US01", "10.1.4.13") == first
    assert peers.of("US01", "10.9.9.9") == Peer(ae_title="US01")


def test_peers_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    file.write_text('[[peer]]\nae_title = "US02"\naddress = "10.1.4.0/24"\nmax_associations = 3\n')
    peers = Peers.parse("US01", file)
    assert [peer.ae_title for peer in peers.allowed] == ["US01", "US02"]
    assert peers.of("US02", "10.1.4.7").max_associations == 3
    for broken in ("[[peer]", '[[peer]]\naddress = "10.0.0.1"', '[[peer]]\nae_title = "A"\ncolour = "red"'):
        file.write_text(broken)
        with pytest.raises(ConfigurationError, match="PEERS_FILE"):
            Peers.parse("", file)
    with pytest.raises(ConfigurationError, match="PEERS_FILE"):
        Peers.parse("", tmp_path / "nowhere")


def test_seats_are_limited_in_all_of_a_peer_and_of_an_address(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "seats", 2)
    ours, theirs = Seats(3, 2, tally, 0), Seats(3, 2, tally, 1)
    one_at_a_time, anybody = Peer(ae_title="US01", max_associations=1), Peer(ae_title="ANY")
    assert ours.take("a", one_at_a_time, "10.0.0.1") == ""
    assert "of this peer" in ours.take("b", one_at_a_time, "10.0.0.1")
    assert ours.take("c", anybody, "10.0.0.1") == ""
    assert "from this address" in ours.take("d", anybody, "10.0.0.1")
    assert theirs.take("e", anybody, "10.0.0.2") == ""
    assert ours.take("f", anybody, "10.0.0.3") == "too many associations"
    theirs.leave("e")
    ours.leave("never came")
    assert ours.take("f", anybody, "10.0.0.3") == ""
    assert Tally(tmp_path / "seats", 2).total() == 3


def test_no_peers_means_open_to_all() -> None:
    assert Peers.parse(" ").open_to_all
    assert Peers.parse("").allows("ANY", "203.0.113.5")


@pytest.mark.parametrize(
    "setting",
    [
        "@10.0.0.1",
        "A" * 17,
        "US01@nowhere",
        "US01@10.0.0.1/99",
        "US01;colour=red",
        "US01;port=x",
        "US01;character_set=KLINGON",
    ],
)
def test_wrong_peers_are_named(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="SONOMARK_PEERS"):
        Peers.parse(setting)


def test_retired_ultrasound_classes_and_every_syntax_are_supported() -> None:
    contexts = {str(context.abstract_syntax): context for context in supported()}
    for uid in ("1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3"):
        assert [str(syntax) for syntax in contexts[uid].transfer_syntax] == list(TRANSFER_SYNTAXES)
    assert list(TRANSFER_SYNTAXES)[-3:] == ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2"]
    assert "1.2.840.10008.1.2.1.99" not in TRANSFER_SYNTAXES
    assert "1.2.3.4" in storage_classes("1.2.3.4, ")
    with pytest.raises(ConfigurationError):
        storage_classes("ultrasound")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfSpace("x"), 0xA700),
        (StorageError("x"), 0xA700),
        (DatabaseAway("x"), 0xA700),
        (DataSetMismatch("x"), 0xA900),
        (NotDicom("x"), 0xC000),
        (NotAllowed("x"), 0x0124),
        (RuntimeError("x"), 0xA700),
        (MemoryError(), 0xA700),
    ],
)
def test_every_error_has_its_status(error: Exception, status: int) -> None:
    assert answer(error) == status
    assert answer(error) != Status.SUCCESS


@pytest.mark.parametrize("uid", ["1.2.3", "1", "1.2.840.00.1", "9" * 64])
def test_uids(uid: str) -> None:
    require_uid(uid, "UID")


@pytest.mark.parametrize("uid", ["", "1..2", ".1", "1.", "../1", "1.2\n", "1.2/3", "9" * 65, "１.２", "a"])
def test_what_is_no_uid(uid: str) -> None:
    with pytest.raises(DataSetMismatch):
        require_uid(uid, "UID")
