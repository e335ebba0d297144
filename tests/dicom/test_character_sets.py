"""Character sets as the parser understands them."""

import codecs

import pytest

from service.dicom.character_sets import DEFINED_TERMS, UNDECLARED, encodings_of, understood
from service.dicom.header import parse_header
from tests.dicom.test_header import EXPLICIT_VR_LITTLE_ENDIAN, encoded, image

# A name in each, as a modality that is set up for it writes it; those with escape sequences are the standard's own
# (PS3.5 annexes H, I and K).
NAMES: dict[str, tuple[str, bytes]] = {
    **{
        term: (name, name.encode(encoding))
        for term, encoding, name in (
            ("ISO_IR 192", "utf-8", "王^小东"),
            ("ISO_IR 100", "iso8859-1", "Buc^Jérôme"),
            ("ISO_IR 101", "iso8859-2", "Wałęsa^Łucja"),
            ("ISO_IR 109", "iso8859-3", "Ħal^Ġużè"),
            ("ISO_IR 110", "iso8859-4", "Bērziņš^Jānis"),
            ("ISO_IR 148", "iso8859-9", "Çağ^Işıl"),
            ("ISO_IR 144", "iso8859-5", "Люксембург^Роза"),
            ("ISO_IR 126", "iso8859-7", "Διονυσιος^Νικος"),
            ("ISO_IR 127", "iso8859-6", "قباني^لنزار"),
            ("ISO_IR 138", "iso8859-8", "שרון^דבורה"),
            ("ISO_IR 166", "iso8859-11", "สมชาย^ใจดี"),
            ("GB18030", "gb18030", "王^小东"),
            ("GBK", "gbk", "王^小东"),
            ("ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        )
    },
    "\\ISO 2022 IR 58": ("张^小东", b"\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
    "\\ISO 2022 IR 149": ("洪^吉洞", b"\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7"),
    "\\ISO 2022 IR 87": ("山田^太郎", b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    "\\ISO 2022 IR 87\\ISO 2022 IR 159": ("山田^丂", b"\x1b$B;3ED\x1b(B^\x1b$(D0!\x1b(B"),
    "ISO 2022 IR 13\\ISO 2022 IR 87": (
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
    ),
}


@pytest.mark.parametrize("term", DEFINED_TERMS)
def test_a_name_is_read_by_a_peers_character_set_whatever_was_declared(term: str) -> None:
    name, written = NAMES[term]
    dataset = image(SpecificCharacterSet="ISO_IR 100")
    dataset.PatientName = written
    sent = encoded(dataset)
    assert parse_header(sent, EXPLICIT_VR_LITTLE_ENDIAN, character_set=term).study["patient_name"] == name
    assert understood(term)
    alone = parse_header(sent, EXPLICIT_VR_LITTLE_ENDIAN).study["patient_name"]
    assert alone != name or term == "ISO_IR 100", "what was declared is wrong"


@pytest.mark.parametrize("term", ["", "ISO_IR 6", "ISO-IR 100", "utf-8", "cp1252", "shift_jis", "\\ISO 2022 IR 100"])
def test_other_names_that_are_understood(term: str) -> None:
    assert understood(term)


@pytest.mark.parametrize(
    "term",
    ["UTF 8 please", "ISO_IR 999", "ISO 2022 IR 999", "ISO_IR 100\\NONE", "rot13", "hex", "utf-16", "cp037", "é", "\0"],
)
def test_what_is_none_is_not_understood(term: str) -> None:
    assert not understood(term)
    assert codecs.lookup(UNDECLARED) and encodings_of(term.encode("utf-8", "replace"))
