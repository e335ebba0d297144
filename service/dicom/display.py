"""Samples to RGB as a viewer displays them: palette, window, colour space (PS3.3, C.7.6.3, C.7.9, C.11)."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from service.dicom.codecs import RESEND, Colors, Samples
from service.errors import Undecodable

RGB = npt.NDArray[np.uint8]  # (rows, columns, 3)
Table = npt.NDArray[np.uint8]  # (stored values,) grey or (stored values, 3) colour


class Display:
    """How one instance's samples are shown."""

    def __init__(self, header: Dataset) -> None:
        self._header = header
        self.photometric = str(header.get("PhotometricInterpretation", "")).strip().upper()
        self._bits_stored = int(header.get("BitsStored") or header.BitsAllocated)
        high_bit = int(header.get("HighBit") or self._bits_stored - 1)
        self._unused_low_bits = max(0, high_bit + 1 - self._bits_stored)
        self._signed = header.get("PixelRepresentation") == 1
        self._table: Table | None = None
        if not 1 <= self._bits_stored <= header.BitsAllocated:
            raise Undecodable("Bits Stored lies outside Bits Allocated.", cure=RESEND)

    def rgb(self, samples: Samples, colors: Colors = "declared") -> RGB:
        """``samples`` as uint8 (rows, columns, 3), red first."""
        if samples.ndim == 3:
            return self._color(self._eight_bits(samples), colors)
        if self.photometric == "PALETTE COLOR":
            if self._table is None:
                self._table = _palette(self._header, 1 << self._bits_stored)
            return np.take(self._table, self._indices(samples), axis=0)
        if self.photometric in ("MONOCHROME1", "MONOCHROME2"):
            return cv2.cvtColor(self._grey(samples), cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
        raise Undecodable(
            f"The photometric interpretation {self.photometric or '(none)'} does not fit one sample a pixel.",
            cure=RESEND,
        )

    def _color(self, samples: npt.NDArray[np.uint8], colors: Colors) -> RGB:
        declared_ybr = self.photometric in ("YBR_FULL", "YBR_FULL_422")
        if colors == "ybr" or (colors == "declared" and declared_ybr):
            # OpenCV's YCrCb is the full-range one of PS3.3, C.7.6.3.1.2, with the last two planes exchanged.
            return cv2.cvtColor(samples[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB)  # type: ignore[return-value]
        if colors == "declared" and self.photometric not in ("RGB", "YBR_ICT", "YBR_RCT"):
            raise Undecodable(f"The photometric interpretation {self.photometric} is not supported.", cure=RESEND)
        return np.ascontiguousarray(samples)

    def _eight_bits(self, samples: Samples) -> npt.NDArray[np.uint8]:
        if samples.dtype == np.uint8:
            return samples
        shift = self._unused_low_bits + max(0, self._bits_stored - 8)
        return (samples >> shift).astype(np.uint8)

    def _grey(self, samples: Samples) -> npt.NDArray[np.uint8]:
        indices = self._indices(samples)
        if self._table is None and not self._has_window() and self._bits_stored > 8:
            # Nothing says which values matter: show what this frame holds, as viewers do.
            values = _values(self._bits_stored, self._signed)[indices]
            return self._maybe_inverted(_scaled(values, float(values.min()), float(values.max())))
        if self._table is None:
            self._table = self._maybe_inverted(_grey_table(self._header, self._bits_stored, self._signed))
        return np.take(self._table, indices)

    def _indices(self, samples: Samples) -> npt.NDArray[Any]:
        """Stored values as numbers from 0: the bits above the stored ones may hold anything, overlays for example."""
        if samples.dtype == np.uint8 and self._bits_stored == 8:
            return samples
        unsigned = samples.view(np.dtype(f"u{samples.dtype.itemsize}"))
        return (unsigned >> self._unused_low_bits) & ((1 << self._bits_stored) - 1)

    def _has_window(self) -> bool:
        return any(word in self._header for word in ("WindowCenter", "VOILUTSequence", "ModalityLUTSequence"))

    def _maybe_inverted(self, grey: Table) -> Table:
        inverse = str(self._header.get("PresentationLUTShape", "")) == "INVERSE"
        return 255 - grey if (self.photometric == "MONOCHROME1") != inverse else grey


def _values(bits: int, signed: bool) -> npt.NDArray[np.int32]:
    """The number each bit pattern stands for, in the order of the patterns."""
    values = np.arange(1 << bits, dtype=np.int32)
    if signed:
        values[1 << (bits - 1) :] -= 1 << bits
    return values


def _grey_table(header: Dataset, bits: int, signed: bool) -> Table:
    """Modality transformation, then the window or VOI LUT, for every stored value at once."""
    values = _values(bits, signed)
    if "VOILUTSequence" in header:
        shown = apply_voi(apply_modality_lut(values, header).astype(values.dtype), header)
        depth = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return _scaled(shown, 0.0, float((1 << depth) - 1))
    output = apply_modality_lut(values, header).astype(np.float64)
    center, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    if center is None or width is None:
        return _scaled(output, float(output.min()), float(output.max()))
    function = str(header.get("VOILUTFunction", "LINEAR")).upper()
    if function == "SIGMOID":
        return _scaled(1 / (1 + np.exp(np.clip(-4 * (output - center) / max(width, 1e-6), -700, 700))), 0.0, 1.0)
    if function == "LINEAR_EXACT":
        return _scaled(output, center - width / 2, center + width / 2)
    # C.11.2.1.2.1: the window's two ends are half a step inside.
    return _scaled(output, center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)


def _scaled(values: npt.NDArray[Any], low: float, high: float) -> Table:
    """``low`` and below become 0, ``high`` and above 255."""
    if high <= low:
        return np.where(values > low, 255, 0).astype(np.uint8)
    scaled: Table = np.rint((np.clip(values, low, high) - low) * (255.0 / (high - low))).astype(np.uint8)
    return scaled


def _first(value: Any) -> float | None:
    """The first of possibly several windows."""
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, MultiValue) else value)


def _palette(header: Dataset, patterns: int) -> Table:
    """The colour of every stored value, (patterns, 3) uint8 (PS3.3, C.7.6.3.1.5 and .6)."""
    try:
        columns = [_palette_column(header, color) for color in ("Red", "Green", "Blue")]
        first = int(header.RedPaletteColorLookupTableDescriptor[1])
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise Undecodable("The color palette is missing or damaged.", cure=RESEND) from error
    if any(column.size == 0 for column in columns):
        raise Undecodable("The color palette is empty.", cure=RESEND)
    # Some devices declare 16 bits and fill 8 of them; the standard's full range would show those as black.
    depth = 8 if max(int(column.max()) for column in columns) > 255 else 0
    values = _values(patterns.bit_length() - 1, header.get("PixelRepresentation") == 1) - first
    # Values before the first entry take the first, values past the last entry take the last.
    return np.stack(
        [(column >> depth).astype(np.uint8)[np.clip(values, 0, column.size - 1)] for column in columns], axis=1
    )


def _palette_column(header: Dataset, color: str) -> npt.NDArray[np.uint16]:
    entries, _, bits = header[f"{color}PaletteColorLookupTableDescriptor"].value
    entries = entries or 1 << 16
    segmented = header.get(f"Segmented{color}PaletteColorLookupTableData")
    data = bytes(segmented or header[f"{color}PaletteColorLookupTableData"].value)
    little = header.original_encoding[1] is not False
    one_byte = bits == 8 if segmented else len(data) <= entries + entries % 2
    size, kind = (1, "u1") if one_byte else (2, "<u2" if little else ">u2")
    words = np.frombuffer(data[: len(data) // size * size], kind)
    table = _expand_segments(words.tolist(), entries) if segmented else words[:entries]
    return np.asarray(table, np.uint16)


def _expand_segments(words: list[int], entries: int) -> list[int]:
    """Discrete, linear and indirect segments (PS3.3, C.7.9.2)."""
    table: list[int] = []

    def expand(at: int, segments: int | None) -> None:
        while at + 1 < len(words) and len(table) < entries and segments != 0:
            kind, length = words[at], words[at + 1]
            if kind == 0:
                table.extend(words[at + 2 : at + 2 + length])
                at += 2 + length
            elif kind == 1 and table:
                start, end = table[-1], words[at + 2]
                table.extend(round(start + (end - start) * step / length) for step in range(1, length + 1))
                at += 3
            elif kind == 2 and segments is None:  # an indirect segment repeats others and holds no indirect ones
                expand(words[at + 2] | words[at + 3] << 16, length)
                at += 4
            else:
                raise ValueError("unknown palette segment")
            segments = None if segments is None else segments - 1

    expand(0, None)
    return table[:entries]
