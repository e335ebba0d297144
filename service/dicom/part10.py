"""The head of a DICOM file, written in front of a peer's data set without touching it. DICOM PS3.10 section 7.1."""

import struct
from importlib.metadata import version

# Derived from a random UUID under 2.25 (PS3.5 section B.2); it names this implementation to other systems.
IMPLEMENTATION_CLASS_UID = "2.25.239087155384571960324117605284411529377"
IMPLEMENTATION_VERSION_NAME = f"SONOMARK_{version('sonomark').replace('.', '_')}"[:16]

# Never what a peer sent: a preamble can make a file look like a program (CVE-2019-11687).
PREAMBLE = bytes(128) + b"DICM"


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling_ae_title: str = "") -> bytes:
    """Preamble, prefix and File Meta Information of a file whose data set follows."""
    elements = [
        _long(0x0001, b"OB", b"\x00\x01"),
        _short(0x0002, b"UI", sop_class_uid),
        _short(0x0003, b"UI", sop_instance_uid),
        _short(0x0010, b"UI", transfer_syntax_uid),
        _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
    ]
    if calling_ae_title:
        elements.append(_short(0x0016, b"AE", calling_ae_title))
    body = b"".join(elements)
    return PREAMBLE + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(body)) + body


def _short(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii", "replace")
    if len(raw) % 2:
        raw += b"\x00" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr, len(raw)) + raw


def _long(element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sHI", 0x0002, element, vr, 0, len(value)) + value
