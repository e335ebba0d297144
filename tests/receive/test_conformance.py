"""The conformance statement says what the code does."""

import re
from pathlib import Path

from service.dicom.part10 import IMPLEMENTATION_CLASS_UID
from service.receive.conformance import MEANINGS, tables
from service.receive.connection import LONGEST_PDU
from service.receive.contexts import supported
from service.receive.status import Status
from service.settings import Settings

STATEMENT = (Path(__file__).resolve().parents[2] / "docs" / "conformance.md").read_text()


def test_tables_are_those_of_the_code() -> None:
    assert tables().strip() in STATEMENT, "run `python -m service.receive.conformance` and paste its output"
    for context in supported():
        assert f"| {context.abstract_syntax} |" in STATEMENT
    assert set(MEANINGS) == set(Status)


def test_values_in_the_text_are_the_defaults() -> None:
    settings = Settings()
    defaults = dict(re.findall(r"`SONOMARK_(\w+)` \(([\w,]+)", STATEMENT))
    assert defaults
    for name, value in defaults.items():
        assert str(Settings.model_fields[name.lower()].default).removesuffix(".0") == value.replace(",", "")
    assert settings.max_pdu <= LONGEST_PDU
    assert IMPLEMENTATION_CLASS_UID in STATEMENT
