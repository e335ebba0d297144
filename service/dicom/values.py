"""Values of data elements as Python values: never an exception for what a modality wrote, only an empty answer."""

import math
import struct
import warnings
from collections.abc import Iterator
from datetime import date
from itertools import islice

from pydicom.charset import decode_bytes

from service.dicom.character_sets import UNDECLARED, encodings_of
from service.dicom.elements import Buffer, Element, items

SPECIFIC_CHARACTER_SET = 0x00080005
_BINARY = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"UV": "Q", b"SV": "q", b"FL": "f", b"FD": "d"}
_LITTLE, _BIG = ({vr: struct.Struct(order + code) for vr, code in _BINARY.items()} for order in "<>")
# PS3.5 section 6.1.2.3: the character set in force falls back to the first one at these.
_DELIMITERS = {0x0A, 0x0C, 0x0D, 0x09}
_TO_GB2312 = "\x1b$)A"  # the escape sequence of ISO 2022 IR 58: pydicom decodes what follows it, and leaves it there
# Six times what the longest value that is asked for may be (LT, PS3.5 section 6.2): a peer may announce gigabytes.
LONGEST_VALUE = 1 << 16
MOST_ITEMS = 1000  # of a sequence


class Values:
    """Reads values of one data set (or one item of a sequence) by tag."""

    def __init__(self, data: Buffer, elements: dict[int, Element], encodings: list[str] | None = None) -> None:
        self._data = data
        self._elements = elements
        declared = elements.get(SPECIFIC_CHARACTER_SET)
        self._encodings = encodings or encodings_of(b"" if declared is None else self._raw(declared))

    def __contains__(self, tag: int) -> bool:
        return tag in self._elements

    def text(self, tag: int) -> str:
        """The value as text, decoded by the data set's character set, padding removed; '' when absent."""
        element = self._elements.get(tag)
        if element is None:
            return ""
        return _decoded(self._raw(element), self._encodings).replace("\x00", "").strip()

    def texts(self, tag: int) -> list[str]:
        """The values of a multi-valued element."""
        value = self.text(tag)
        return [part.strip() for part in value.split("\\")] if value else []

    def integer(self, tag: int) -> int | None:
        """A whole number, also where a modality wrote it in another integer VR or as text."""
        number = self._number(tag)
        return int(number) if number is not None else None

    def number(self, tag: int) -> float | None:
        """A decimal number."""
        number = self._number(tag)
        return float(number) if number is not None else None

    def date(self, tag: int) -> date | None:
        """A DA value; None when absent or no date."""
        if tag not in self._elements:
            return None
        digits = self.text(tag).replace(".", "").replace("-", "")[:8]
        try:
            return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
        except ValueError:
            return None

    def items(self, tag: int) -> Iterator["Values"]:
        """The items of a sequence."""
        sequence = self._elements.get(tag)
        if sequence is not None and sequence.vr in (b"SQ", b"UN"):
            for elements in islice(items(self._data, sequence), MOST_ITEMS):
                own = self._encodings if SPECIFIC_CHARACTER_SET not in elements else None
                yield Values(self._data, elements, own)

    def _raw(self, element: Element) -> bytes:
        _, start, stop, _ = element
        return bytes(self._data[start : stop if stop - start < LONGEST_VALUE else start + LONGEST_VALUE])

    def _number(self, tag: int) -> int | float | None:
        element = self._elements.get(tag)
        if element is None:
            return None
        vr, start, stop, encoding = element
        binary = (_LITTLE if encoding.little else _BIG).get(vr)
        if binary is not None:
            number = binary.unpack_from(self._data, start)[0] if stop - start >= binary.size else None
            return number if number is not None and math.isfinite(number) else None
        try:
            number = float(self.texts(tag)[0])
        except (ValueError, IndexError):
            return None
        if not math.isfinite(number):
            return None
        return int(number) if number.is_integer() else number


def _decoded(raw: bytes, encodings: list[str]) -> str:
    """Text in the declared character set; where that fails or none is declared, UTF-8, else something to show."""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    try:
        if b"\x1b" in raw:
            with warnings.catch_warnings(action="ignore"):
                return str(decode_bytes(raw, encodings, _DELIMITERS)).replace(_TO_GB2312, "")
        if encodings[0] != UNDECLARED:
            return raw.decode(encodings[0])
    except (UnicodeError, LookupError, ValueError):
        pass
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
