"""Compressed frames to samples, one decoder per family of transfer syntaxes (PS3.5, Annex A).

Runs in the decoder process only: whatever these libraries make of hostile bytes, it does not happen in the worker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import jpeg_ls
import numpy as np
import numpy.typing as npt
import simplejpeg
from openjpeg.utils import decode as decode_jpeg_2000
from pydicom import uid
from rle.rle import decode_frame as decode_rle

from service.errors import Undecodable

Samples = npt.NDArray[Any]  # (rows, columns) or (rows, columns, 3)
Colors = Literal["rgb", "ybr", "declared"]

EXPORT = "Export the image again as Explicit VR Little Endian, JPEG Baseline or JPEG 2000."
RESEND = "The pixel data is damaged: ask the modality or the PACS to send the original again."


@dataclass(frozen=True)
class Layout:
    """What the header says of each frame."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the decoded array: a plane for one sample a pixel, interleaved for three."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)


def decode(frame: bytes, syntax: str, layout: Layout) -> tuple[Samples, Colors]:
    """Samples of one encapsulated frame, and the colour space they are in.

    ``declared`` means that the bytes do not say: the photometric interpretation does.
    Raises `Undecodable` for an unknown syntax, damaged bytes, or a codestream that disagrees with the header.
    """
    try:
        decoder = _DECODERS[syntax]
    except KeyError:
        name = uid.UID(syntax).name
        raise Undecodable(f"No decoder for the transfer syntax {name}.", cure=EXPORT) from None
    try:
        samples, colors = decoder(frame, layout)
    except Undecodable:
        raise
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        # The libraries name no common base; their messages hold positions and markers, no patient data.
        raise Undecodable(f"The compressed frame is damaged ({_first_line(error)}).", cure=RESEND) from error
    if samples.shape != layout.shape:
        raise Undecodable(f"The compressed frame is {samples.shape}, the header says {layout.shape}.", cure=RESEND)
    return samples, colors


def _jpeg(frame: bytes, layout: Layout) -> tuple[Samples, Colors]:
    """Baseline and extended JPEG. The codestream, not the header, says whether it holds RGB or YCbCr."""
    marks = read_jpeg_marks(frame)
    if (marks.rows, marks.columns, marks.components) != (layout.rows, layout.columns, layout.samples):
        raise Undecodable(
            f"The JPEG frame is {marks.rows} x {marks.columns} x {marks.components}, the header says "
            f"{layout.rows} x {layout.columns} x {layout.samples}.",
            cure=RESEND,
        )
    if marks.lossless:
        return _jpeg_lossless(frame, layout)
    if marks.precision != 8:
        return imagecodecs.jpeg8_decode(frame), "rgb"
    if layout.samples == 1:
        return simplejpeg.decode_jpeg(frame, colorspace="GRAY", strict=False)[..., 0], "declared"
    if marks.silent:
        # Neither JFIF nor Adobe nor telling component ids: turbo would take it for YCbCr, so undo nothing.
        raw = imagecodecs.jpeg8_decode(frame, colorspace="RGB", outcolorspace="RGB")
        return raw, "ybr" if _looks_like_ybr(raw) else "rgb"
    return simplejpeg.decode_jpeg(frame, colorspace="RGB", strict=False), "rgb"


def _jpeg_lossless(frame: bytes, layout: Layout) -> tuple[Samples, Colors]:
    return np.ascontiguousarray(imagecodecs.jpegsof3_decode(frame)), "declared"


def _jpeg_ls(frame: bytes, layout: Layout) -> tuple[Samples, Colors]:
    return jpeg_ls.decode(np.frombuffer(frame, np.uint8)), "declared"


def _jpeg_2000(frame: bytes, layout: Layout) -> tuple[Samples, Colors]:
    if frame.startswith(b"\x00\x00\x00\x0cjP  "):  # a JP2 file where the standard wants a bare codestream
        return decode_jpeg_2000(frame, j2k_format=2), "rgb"
    # The decoder undoes the codestream's own component transform; without one the header's word stands.
    return decode_jpeg_2000(frame, j2k_format=0), "rgb" if _has_component_transform(frame) else "declared"


def _htj2k(frame: bytes, layout: Layout) -> tuple[Samples, Colors]:
    return imagecodecs.htj2k_decode(frame), "rgb" if _has_component_transform(frame) else "declared"


def _jpeg_xl(frame: bytes, layout: Layout) -> tuple[Samples, Colors]:
    samples = imagecodecs.jpegxl_decode(frame, numthreads=1)
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    return samples, "rgb"


def _rle(frame: bytes, layout: Layout) -> tuple[Samples, Colors]:
    """RLE keeps each byte of each sample in a segment of its own (PS3.5, Annex G)."""
    size = layout.bits_allocated // 8
    planes = np.frombuffer(
        decode_rle(frame, layout.rows * layout.columns, layout.bits_allocated, "<"), np.dtype(f"<u{size}")
    )
    if planes.size != layout.samples * layout.rows * layout.columns:
        raise Undecodable("The RLE frame holds another number of samples than the header says.", cure=RESEND)
    planes = planes.reshape(layout.samples, layout.rows, layout.columns)
    return (planes[0] if layout.samples == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))), "declared"


@dataclass(frozen=True)
class JpegMarks:
    """What the markers before the first scan say; ``silent`` when none of them names the colour space."""

    rows: int
    columns: int
    components: int
    precision: int
    lossless: bool
    silent: bool


def read_jpeg_marks(frame: bytes) -> JpegMarks:
    """Walk the marker segments (ITU-T T.81, B.1) up to the frame header."""
    at, told = 2, False
    while at + 4 <= len(frame):
        if frame[at] != 0xFF:
            at += 1
            continue
        marker = frame[at + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a segment
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(frame[at + 2 : at + 4], "big")
        body = frame[at + 4 : at + 2 + length]
        if (marker == 0xE0 and body.startswith(b"JFIF\0")) or (marker == 0xEE and body.startswith(b"Adobe")):
            told = True
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            ids = bytes(body[6::3])
            return JpegMarks(
                rows=int.from_bytes(body[1:3], "big"),
                columns=int.from_bytes(body[3:5], "big"),
                components=body[5],
                precision=body[0],
                lossless=marker in (0xC3, 0xC7, 0xCB, 0xCF),
                silent=not told and ids != b"RGB",
            )
        at += 2 + length
    raise Undecodable("The JPEG frame has no frame header.", cure=RESEND)


def _looks_like_ybr(raw: npt.NDArray[np.uint8]) -> bool:
    """Whether three planes of an ultrasound screen, which is mostly black and grey, are Y, Cb and Cr.

    Grey is (y, 128, 128) in one and has three equal values in the other.
    """
    sample = raw[::4, ::4].reshape(-1, 3).astype(np.int16)
    neutral = (np.abs(sample[:, 1:] - 128) <= 4).all(axis=1).mean()
    equal = (np.abs(sample[:, 1:] - sample[:, :1]) <= 4).all(axis=1).mean()
    return bool(neutral > equal)


def _has_component_transform(codestream: bytes) -> bool:
    """The multiple component transformation flag of the COD segment (ITU-T T.800, A.6.1)."""
    at = codestream.find(b"\xff\x52", 0, 65536)
    return at >= 0 and len(codestream) > at + 8 and codestream[at + 8] == 1


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


_DECODERS: dict[str, Callable[[bytes, Layout], tuple[Samples, Colors]]] = {
    uid.RLELossless: _rle,
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: _jpeg,
    uid.JPEGLosslessSV1: _jpeg,
    uid.JPEGLSLossless: _jpeg_ls,
    uid.JPEGLSNearLossless: _jpeg_ls,
    uid.JPEG2000Lossless: _jpeg_2000,
    uid.JPEG2000: _jpeg_2000,
    uid.HTJ2KLossless: _htj2k,
    uid.HTJ2KLosslessRPCL: _htj2k,
    uid.HTJ2K: _htj2k,
    "1.2.840.10008.1.2.4.110": _jpeg_xl,
    "1.2.840.10008.1.2.4.111": _jpeg_xl,
    "1.2.840.10008.1.2.4.112": _jpeg_xl,
}
