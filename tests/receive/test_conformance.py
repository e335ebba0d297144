"""The conformance statement says what the code does."""

import re
from pathlib import Path

from service.dicom.part10 import IMPLEMENTATION_CLASS_UID
from service.receive.commitment import MOST_REFERENCES, MOST_WAITING, Failure, Refusal
from service.receive.conformance import FAILURES, MEANINGS, REFUSALS, tables
from service.receive.connection import LONGEST_PDU
from service.receive.contexts import supported
from service.receive.peers import Peer
from service.receive.status import Status
from service.receive.tls import HANDSHAKE_S
from service.settings import Settings

STATEMENT = (Path(__file__).resolve().parents[2] / "docs" / "conformance.md").read_text()


def test_tables_are_those_of_the_code() -> None:
    assert tables().strip() in STATEMENT, "run `python -m service.receive.conformance` and paste its output"
    for context in supported():
        assert f"| {context.abstract_syntax} |" in STATEMENT
    assert set(MEANINGS) == set(Status)
    assert set(REFUSALS) == set(Refusal)
    assert set(FAILURES) == set(Failure)
    assert f"more than {MOST_REFERENCES:,} instances, or more than {MOST_WAITING} requests" in STATEMENT


def test_every_option_of_a_peer_is_described() -> None:
    described = set(re.findall(r"^\| `(\w+)` \(", STATEMENT, re.MULTILINE))
    assert described == set(Peer.model_fields) - {"ae_title"}
    assert f"| `port` ({Peer(ae_title='X').port}) |" in STATEMENT


def test_the_tls_profile_is_described() -> None:
    assert f"A handshake has {HANDSHAKE_S:.0f} s in all." in STATEMENT
    for setting in ("dicom_certificate", "dicom_private_key", "dicom_client_ca", "dicom_tls_port"):
        assert setting in Settings.model_fields
        assert f"SONOMARK_{setting.upper()}" in STATEMENT


def test_values_in_the_text_are_the_defaults() -> None:
    settings = Settings()
    defaults = dict(re.findall(r"`SONOMARK_(\w+)` \(([\w,]+)", STATEMENT))
    assert defaults
    for name, value in defaults.items():
        assert str(Settings.model_fields[name.lower()].default).removesuffix(".0") == value.replace(",", "")
    assert settings.max_pdu <= LONGEST_PDU
    assert IMPLEMENTATION_CLASS_UID in STATEMENT
