"""Walking the data elements of an encoded data set, without decoding values and without recursion.

A general reader builds a tree of objects and recurses into sequences as deep as the sender nested them; a peer
that nests a few hundred takes it down. This one walks once, keeps only where each top-level value lies, and gives
up at a depth no real image reaches. DICOM PS3.5 section 7.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary

from service.errors import NotDicom

MAX_DEPTH = 32
MOST_ELEMENTS = 1_000_000  # items and what is in them included; a gigabyte of empty ones would take minutes
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_GROUP = 0x7FE0

# PS3.5 section 7.1.2: these carry two reserved bytes and a length of four.
LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
BYTES_VRS = {b"OB", b"OW"}

Buffer = bytes | bytearray | memoryview | mmap


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: with or without VR, low or high byte first."""

    explicit: bool
    little: bool


EXPLICIT_LE, EXPLICIT_BE, IMPLICIT_LE = Encoding(True, True), Encoding(True, False), Encoding(False, True)


class Element(NamedTuple):
    """One top-level element: where its value lies. ``stop`` leaves out a sequence's delimiter."""

    vr: bytes
    start: int
    stop: int
    encoding: Encoding  # of a sequence's items; a UN of undefined length is Implicit LE whatever surrounds it


def walk(
    data: Buffer, start: int, stop: int, encoding: Encoding, last_group: int = PIXEL_GROUP
) -> tuple[dict[int, Element], int]:
    """Top-level elements of ``data[start:stop]`` by tag, and the position behind the last one.

    The walk ends behind the first element of pixel data, before the first one of a group above ``last_group``,
    or at the end of the item it stands in.

    Raises:
        NotDicom: an element reaches beyond the data, or sequences nest deeper than MAX_DEPTH.
    """
    open_containers: list[_Container] = []
    elements, position = _plain(data, start, stop, encoding, last_group) if encoding.explicit else ({}, start)
    walked = 0
    while position < stop:
        walked += 1
        if walked > MOST_ELEMENTS:
            raise NotDicom(f"It has more than {MOST_ELEMENTS} data elements.")
        while open_containers and open_containers[-1].stop <= position:
            open_containers.pop()
        here = open_containers[-1].encoding if open_containers else encoding
        tag, vr, value, length = _element(data, position, stop, here)
        if tag in (ITEM_END, SEQUENCE_END):
            if not open_containers:
                return elements, value
            closed = open_containers.pop()
            if tag == SEQUENCE_END and closed.is_item:  # the item's own delimiter was forgotten
                if not open_containers:
                    return elements, value
                closed = open_containers.pop()
            if closed.tag is not None:
                elements[closed.tag] = Element(closed.vr, closed.start, position, closed.encoding)
            position = value
            continue
        if tag == ITEM:
            position = _open_item(open_containers, value, length, stop)
            continue
        if not open_containers and tag >> 16 > last_group:
            return elements, position
        if length == UNDEFINED:
            if not open_containers and tag >> 16 == PIXEL_GROUP:
                elements[tag] = Element(vr, value, stop, here)
                return elements, stop
            if len(open_containers) >= 2 * MAX_DEPTH:
                raise NotDicom(f"Sequences are nested deeper than {MAX_DEPTH}.")
            inner = IMPLICIT_LE if vr == b"UN" else here
            open_containers.append(
                _Container(None if open_containers else tag, vr, value, stop, inner, fragments=vr in BYTES_VRS)
            )
            position = value
            continue
        if value + length > stop:
            raise NotDicom(f"The data set ends within element ({tag >> 16:04X},{tag & 0xFFFF:04X}).")
        position = value + length
        if not open_containers:
            elements[tag] = Element(vr, value, position, here)
            if tag >> 16 == PIXEL_GROUP:
                return elements, position
    if any(container.stop > stop or container.undefined for container in open_containers):
        raise NotDicom("The data set ends within a sequence.")
    return elements, position


def _plain(
    data: Buffer, position: int, stop: int, encoding: Encoding, last_group: int
) -> tuple[dict[int, Element], int]:
    """The plain elements in front: with a VR, a length, and no pixels. Of most images that is all but the last one."""
    elements: dict[int, Element] = {}
    head, long = (_HEAD_LE, _LONG_LE) if encoding.little else (_HEAD_BE, _LONG_BE)
    last_group = min(last_group, PIXEL_GROUP - 1)
    for _ in range(MOST_ELEMENTS):
        if position + 12 > stop:
            break
        group, number, vr, length = head.unpack_from(data, position)
        value = position + 8
        if vr in LONG_VRS:
            (length,) = long.unpack_from(data, value)
            value += 4
        elif not (vr.isalpha() and vr.isupper()):
            break
        if group > last_group or length == UNDEFINED or value + length > stop:
            break
        position = value + length
        elements[group << 16 | number] = Element(vr, value, position, encoding)
    return elements, position


def items(data: Buffer, sequence: Element) -> Iterator[dict[int, Element]]:
    """The items of a sequence, each as its top-level elements by tag."""
    position, encoding = sequence.start, sequence.encoding
    while position < sequence.stop:
        tag, _, value, length = _element(data, position, sequence.stop, encoding)
        if tag != ITEM:
            return
        stop = sequence.stop if length == UNDEFINED else value + length
        if stop > sequence.stop:
            raise NotDicom("An item reaches beyond its sequence.")
        elements, position = walk(data, value, stop, encoding)
        if length != UNDEFINED:
            position = stop
        yield elements


@dataclass(slots=True)
class _Container:
    """A sequence or item that the walk is inside of."""

    tag: int | None  # of a top-level sequence
    vr: bytes
    start: int
    stop: int
    encoding: Encoding
    fragments: bool = False
    is_item: bool = False
    undefined: bool = True


def _open_item(open_containers: list[_Container], value: int, length: int, stop: int) -> int:
    """Step into an item of a sequence, or over a fragment of encapsulated pixels; the next position."""
    if not open_containers or open_containers[-1].is_item:
        raise NotDicom("An item stands outside of any sequence.")
    sequence = open_containers[-1]
    if length == UNDEFINED:
        open_containers.append(_Container(None, b"", value, stop, sequence.encoding, is_item=True))
        return value
    if value + length > stop:
        raise NotDicom("An item reaches beyond the data set.")
    if sequence.fragments or length == 0:
        return value + length
    open_containers.append(
        _Container(None, b"", value, value + length, sequence.encoding, is_item=True, undefined=False)
    )
    return value


_HEAD_LE, _HEAD_BE = struct.Struct("<HH2sH"), struct.Struct(">HH2sH")
_LONG_LE, _LONG_BE = struct.Struct("<I"), struct.Struct(">I")


def _element(data: Buffer, position: int, stop: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, VR, position and length of the value of the element at ``position``."""
    if position + 8 > stop:
        raise NotDicom("The data set ends within an element's tag.")
    head, long = (_HEAD_LE, _LONG_LE) if encoding.little else (_HEAD_BE, _LONG_BE)
    group, number, vr, length = head.unpack_from(data, position)
    tag = group << 16 | number
    if group == 0xFFFE:
        return tag, b"", position + 8, long.unpack_from(data, position + 4)[0]
    if encoding.explicit:
        if vr in LONG_VRS:
            if position + 12 > stop:
                raise NotDicom("The data set ends within an element's length.")
            return tag, vr, position + 12, long.unpack_from(data, position + 8)[0]
        if vr.isalpha() and vr.isupper():
            return tag, vr, position + 8, length
    # Implicit VR; some modalities also drop the VR of single elements within an explicit data set.
    known = DicomDictionary.get(tag)
    return tag, known[0][:2].encode() if known else b"UN", position + 8, long.unpack_from(data, position + 4)[0]
