"""What the receiver accepts: storage SOP classes, and transfer syntaxes in the order it prefers them.

The acceptor's order wins (PS3.8 section 7.1.1.13), so a list that begins with Implicit VR makes senders convert and
loses private VRs. Here lossless compression comes first, then lossy, then the uncompressed ones with VRs; Implicit
VR comes last. Deflated is left out: 600 KB of it can inflate to 600 MB, and no cart needs it.
"""

from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class

from service.errors import ConfigurationError

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"

_US = "1.2.840.10008.5.1.4.1.1"
ULTRASOUND = {
    f"{_US}.6.1": "Ultrasound Image",
    f"{_US}.3.1": "Ultrasound Multi-frame Image",
    f"{_US}.6.2": "Enhanced US Volume",
    f"{_US}.6.3": "Photoacoustic Image",
    f"{_US}.6": "Ultrasound Image (retired)",
    f"{_US}.3": "Ultrasound Multi-frame Image (retired)",
}
SECONDARY_CAPTURE_IMAGE = f"{_US}.7"
SECONDARY_CAPTURE = {
    SECONDARY_CAPTURE_IMAGE: "Secondary Capture Image",
    f"{_US}.7.1": "Multi-frame Single Bit Secondary Capture Image",
    f"{_US}.7.2": "Multi-frame Grayscale Byte Secondary Capture Image",
    f"{_US}.7.3": "Multi-frame Grayscale Word Secondary Capture Image",
    f"{_US}.7.4": "Multi-frame True Color Secondary Capture Image",
}
# Carts send these along with the images; refusing them makes some drop the whole association.
COMPANIONS = {
    f"{_US}.88.11": "Basic Text SR",
    f"{_US}.88.22": "Enhanced SR",
    f"{_US}.88.33": "Comprehensive SR",
    f"{_US}.88.34": "Comprehensive 3D SR",
    f"{_US}.88.59": "Key Object Selection Document",
    f"{_US}.11.1": "Grayscale Softcopy Presentation State",
    f"{_US}.11.2": "Color Softcopy Presentation State",
}

_TS = "1.2.840.10008.1.2"
LOSSLESS = {
    f"{_TS}.4.70": "JPEG Lossless, first-order prediction",
    f"{_TS}.4.57": "JPEG Lossless",
    f"{_TS}.4.80": "JPEG-LS Lossless",
    f"{_TS}.4.90": "JPEG 2000 Lossless",
    f"{_TS}.4.92": "JPEG 2000 Part 2 Lossless",
    f"{_TS}.4.201": "High-Throughput JPEG 2000 Lossless",
    f"{_TS}.4.202": "High-Throughput JPEG 2000 RPCL Lossless",
    f"{_TS}.4.110": "JPEG XL Lossless",
    f"{_TS}.4.111": "JPEG XL JPEG Recompression",
    f"{_TS}.5": "RLE Lossless",
}
LOSSY = {
    f"{_TS}.4.50": "JPEG Baseline",
    f"{_TS}.4.51": "JPEG Extended",
    f"{_TS}.4.81": "JPEG-LS Near-lossless",
    f"{_TS}.4.91": "JPEG 2000",
    f"{_TS}.4.93": "JPEG 2000 Part 2",
    f"{_TS}.4.203": "High-Throughput JPEG 2000",
    f"{_TS}.4.112": "JPEG XL",
}
VIDEO = {
    f"{_TS}.4.100": "MPEG2 Main Profile / Main Level",
    f"{_TS}.4.100.1": "Fragmentable MPEG2 Main Profile / Main Level",
    f"{_TS}.4.101": "MPEG2 Main Profile / High Level",
    f"{_TS}.4.101.1": "Fragmentable MPEG2 Main Profile / High Level",
    f"{_TS}.4.102": "MPEG-4 AVC/H.264 High Profile / Level 4.1",
    f"{_TS}.4.102.1": "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1",
    f"{_TS}.4.103": "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1",
    f"{_TS}.4.103.1": "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1",
    f"{_TS}.4.104": "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video",
    f"{_TS}.4.104.1": "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video",
    f"{_TS}.4.105": "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video",
    f"{_TS}.4.105.1": "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video",
    f"{_TS}.4.106": "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2",
    f"{_TS}.4.106.1": "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2",
    f"{_TS}.4.107": "HEVC/H.265 Main Profile / Level 5.1",
    f"{_TS}.4.108": "HEVC/H.265 Main 10 Profile / Level 5.1",
}
UNCOMPRESSED = {
    f"{_TS}.1": "Explicit VR Little Endian",
    f"{_TS}.2": "Explicit VR Big Endian",
    f"{_TS}": "Implicit VR Little Endian",
}
TRANSFER_SYNTAXES = {**LOSSLESS, **LOSSY, **VIDEO, **UNCOMPRESSED}


def storage_classes(extra: str = "") -> list[str]:
    """SOP Class UIDs that may be stored; ``extra`` is the setting of that name, comma separated.

    Raises:
        ConfigurationError: an extra entry is no UID.
    """
    configured = [uid.strip() for uid in extra.split(",") if uid.strip()]
    for uid in configured:
        if not set(uid) <= set("0123456789.") or len(uid) > 64:
            raise ConfigurationError(
                f"'{uid}' is no SOP Class UID.", cure="Correct SONOMARK_EXTRA_SOP_CLASSES: UIDs, comma separated."
            )
    return list(dict.fromkeys([*ULTRASOUND, *SECONDARY_CAPTURE, *COMPANIONS, *configured]))


def supported(extra: str = "") -> list[PresentationContext]:
    """The presentation contexts the receiver accepts."""
    contexts = [build_context(uid, list(UNCOMPRESSED)) for uid in (VERIFICATION, STORAGE_COMMITMENT)]
    for uid in storage_classes(extra):
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, f"Storage_{uid.replace('.', '_')}", StorageServiceClass)
        contexts.append(build_context(uid, list(TRANSFER_SYNTAXES)))
    return contexts
