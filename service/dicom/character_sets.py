"""Specific Character Set (0008,0005): its Defined Terms (PS3.3 section C.12.1.1.2), and Python's names for them."""

import warnings
from functools import lru_cache

from pydicom.charset import convert_encodings, python_encoding

UNDECLARED = "iso8859"  # pydicom's name of what none, and none that is known, is declared

# Those to choose from: alone, or with the code extensions that a language is written with.
DEFINED_TERMS = {
    "ISO_IR 192": "Unicode (UTF-8)",
    "ISO_IR 100": "Latin 1: Western Europe",
    "ISO_IR 101": "Latin 2: Central Europe",
    "ISO_IR 109": "Latin 3: Southern Europe",
    "ISO_IR 110": "Latin 4: Northern Europe",
    "ISO_IR 148": "Latin 5: Turkish",
    "ISO_IR 144": "Cyrillic",
    "ISO_IR 126": "Greek",
    "ISO_IR 127": "Arabic",
    "ISO_IR 138": "Hebrew",
    "ISO_IR 166": "Thai",
    "GB18030": "Chinese",
    "GBK": "Chinese, simplified",
    "\\ISO 2022 IR 58": "Chinese, simplified, by escape sequences",
    "\\ISO 2022 IR 149": "Korean",
    "ISO_IR 13": "Japanese: katakana",
    "\\ISO 2022 IR 87": "Japanese: kanji",
    "\\ISO 2022 IR 87\\ISO 2022 IR 159": "Japanese: kanji, supplementary too",
    "ISO 2022 IR 13\\ISO 2022 IR 87": "Japanese: katakana and kanji",
}


@lru_cache(maxsize=64)
def encodings_of(raw: bytes) -> list[str]:
    """Python's names of the declared character sets, the first one in force at the beginning of each value."""
    declared = raw.decode("ascii", "replace").replace("\x00", "").split("\\")
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote what stands in the header
            return [str(encoding) for encoding in convert_encodings([name.strip() for name in declared])]
    except (LookupError, ValueError):
        return [UNDECLARED]


def understood(character_set: str) -> bool:
    """Is each of its values a Defined Term, or a name that Python knows for one that extends ASCII?"""
    return all(name.strip() in python_encoding or _extends_ascii(name) for name in character_set.split("\\"))


def _extends_ascii(name: str) -> bool:
    encoding = encodings_of(name.encode("ascii", "replace"))[0]
    try:
        return encoding != UNDECLARED and b"A".decode(encoding) == "A"
    except (LookupError, ValueError):
        return False
