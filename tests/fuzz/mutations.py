"""Damage as it comes: bits that flip, lengths that lie, pieces that are lost, doubled or exchanged.

DICOM is a language of tags and lengths, so most damage is done to those; random bytes alone die at the first check.
"""

import random
import struct

LENGTHS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0xFFF0, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF)
WORDS = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",  # an item of undefined length
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",  # its end
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",  # the end of a sequence
    b"\x08\x00\x06\x00SQ\x00\x00\xff\xff\xff\xff",
    b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff",  # encapsulated pixel data
    b"\x00\x00\x00\x00",
    b"\x1b$B",
    b"../../../../tmp/x\x00",
    b"\xff\xfe\xfd",
)


class Mutator:
    """Damages samples; the same seed does the same damage."""

    def __init__(self, seed: int, samples: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._samples = samples

    def next(self) -> bytes:
        """One damaged sample: one to four injuries."""
        data = bytearray(self._random.choice(self._samples))
        for _ in range(self._random.randint(1, 4)):
            self._random.choice((self._flip, self._lie, self._cut, self._double, self._insert, self._exchange))(data)
        return bytes(data)

    def _at(self, data: bytearray) -> int:
        # Heads matter most: half of the injuries hit the first kilobyte.
        reach = len(data) if self._random.random() < 0.5 else min(len(data), 1024)
        return self._random.randrange(reach + 1) if data else 0

    def _flip(self, data: bytearray) -> None:
        at = self._at(data)
        if at < len(data):
            data[at] ^= 1 << self._random.randrange(8)

    def _lie(self, data: bytearray) -> None:
        at, length = self._at(data), self._random.choice(LENGTHS)
        shape = self._random.choice(("<I", ">I", "<H", ">H"))
        raw = struct.pack(shape, length & (0xFFFFFFFF if shape[1] == "I" else 0xFFFF))
        data[at : at + len(raw)] = raw

    def _cut(self, data: bytearray) -> None:
        at = self._at(data)
        del data[at : at + self._random.choice((1, 2, 8, 100, 1 << 20))]

    def _double(self, data: bytearray) -> None:
        at, count = self._at(data), self._random.choice((2, 8, 64, 1000))
        data[at:at] = data[at : at + count] * self._random.choice((1, 1, 2, 300))
        del data[200_000:]

    def _insert(self, data: bytearray) -> None:
        at = self._at(data)
        data[at:at] = self._random.choice(WORDS) * self._random.choice((1, 1, 3, 60))

    def _exchange(self, data: bytearray) -> None:
        other, at = self._random.choice(self._samples), self._at(data)
        start = self._random.randrange(len(other) + 1)
        data[at:] = other[start:]
