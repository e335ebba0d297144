"""A file's frames: a DICOM instance, a PNG or a JPEG, opened without reading more than is asked for.

Runs in the decoder process only. Sizes are checked from the header before anything is decoded.
"""

from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from pydicom import config, dcmread, uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError

from service.dicom.codecs import RESEND, Layout, decode, read_jpeg_marks
from service.dicom.display import RGB, Display
from service.dicom.overlays import OVERLAY_DATA
from service.dicom.plain import plain_rgb
from service.dicom.reading import is_fault
from service.errors import NotDicom, Undecodable

config.settings.reading_validation_mode = config.IGNORE

UNDEFINED_LENGTH = 0xFFFFFFFF
# Every other transfer syntax, those this pydicom does not know included, is encapsulated (PS3.5, Annex A).
NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)


class Picture(Protocol):
    """Frames of one file, counted from 1."""

    frames: int
    rows: int
    columns: int
    sop_instance_uid: str
    has_overlays: bool

    def rgb(self, number: int) -> RGB:
        """Frame ``number`` as displayed."""
        ...


def open_picture(path: Path, max_pixels: int) -> Picture:
    """Raises `NotDicom` for a file that is no image at all, `Undecodable` for one without usable pixels."""
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:132] == b"DICM":
        return DicomPicture(path, max_pixels)
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return PlainPicture(path, max_pixels)
    if head[1:2] == b"\0" and head[:1] in (b"\x02", b"\x08") and head[3:4] == b"\0":
        return DicomPicture(path, max_pixels)  # group 2 or 8 without a preamble, as old exports have it
    raise NotDicom(f"{path.name} is neither DICOM nor PNG nor JPEG.")


class DicomPicture:
    """The pixel data of a DICOM instance (PS3.3, C.7.6.3)."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._path = path
        self._max_pixels = max_pixels
        header, self._pixels_at = _read_header(path)
        if not self._pixels_at and "PixelData" not in header:
            raise Undecodable("The object has no pixel data.", cure="Nothing to do: it is not an image.")
        self._syntax = str(getattr(header.file_meta, "TransferSyntaxUID", "") or uid.ImplicitVRLittleEndian)
        self.sop_instance_uid = str(header.get("SOPInstanceUID", ""))
        self.has_overlays = any(tag in header for tag in OVERLAY_DATA)
        self.rows, self.columns, self.frames, self._layout = _measure(header, max_pixels)
        self._is_little = self._syntax != uid.ExplicitVRBigEndian
        self._is_ow = False
        self._planar = header.get("PlanarConfiguration") == 1
        self._header = header
        self._display = Display(header)

    def rgb(self, number: int) -> RGB:
        if not 1 <= number <= self.frames:
            raise Undecodable(f"There is no frame {number}, only {self.frames}.", cure="Ask for a frame that exists.")
        with self._open() as file:
            if self._syntax not in NATIVE:
                samples, colors = decode(self._compressed(file, number), self._syntax, self._layout)
                return self._display.rgb(samples, colors)
            return self._display.rgb(self._native(file, number))

    def _open(self) -> BinaryIO:
        if self._syntax == uid.DeflatedExplicitVRLittleEndian:
            return BytesIO(self._header.PixelData)
        file = self._path.open("rb")
        file.seek(self._pixels_at)
        return file

    def _compressed(self, file: BinaryIO, number: int) -> bytes:
        # Tag, VR OB, two reserved bytes, undefined length: the items follow (PS3.5, A.4).
        head = file.read(12)
        if int.from_bytes(head[8:12], "little") != UNDEFINED_LENGTH:
            raise Undecodable("The transfer syntax is compressed, the pixel data is not encapsulated.", cure=RESEND)
        offsets = self._header.get("ExtendedOffsetTable"), self._header.get("ExtendedOffsetTableLengths")
        try:
            return get_frame(
                file,
                number - 1,
                extended_offsets=offsets if all(offsets) else None,
                number_of_frames=self.frames,
            )
        except (ValueError, EOFError, OSError, StopIteration) as error:
            if isinstance(error, OSError) and is_fault(error):
                raise
            raise Undecodable(f"Frame {number} of {self.frames} is not in the pixel data.", cure=RESEND) from error

    def _native(self, file: BinaryIO, number: int) -> np.ndarray[Any, Any]:
        length = self._native_length(file)
        shape = self._layout
        pixels = shape.rows * shape.columns
        sample_bytes = shape.bits_allocated // 8
        subsampled = (
            self._display.photometric == "YBR_FULL_422" and shape.samples == 3 and length < pixels * 3 * self.frames
        )
        size = pixels * sample_bytes * (2 if subsampled else shape.samples)
        if length < size * self.frames:
            raise Undecodable(f"The pixel data is too short for {self.frames} frames.", cure=RESEND)
        samples = self._words(file, (number - 1) * size, size, sample_bytes)
        if subsampled:
            return _unfold_422(samples.reshape(shape.rows, shape.columns // 2, 4))
        if shape.samples == 1:
            return samples.reshape(shape.rows, shape.columns)
        if self._planar:
            return np.ascontiguousarray(samples.reshape(3, shape.rows, shape.columns).transpose(1, 2, 0))
        return samples.reshape(shape.rows, shape.columns, 3)

    def _native_length(self, file: BinaryIO) -> int:
        """Read past tag, VR and length; the value follows."""
        if self._syntax == uid.DeflatedExplicitVRLittleEndian:
            return len(self._header.PixelData)
        implicit, little = self._syntax == uid.ImplicitVRLittleEndian, self._is_little
        head = file.read(8 if implicit else 12)
        self._is_ow = not implicit and head[4:6] == b"OW"
        return int.from_bytes(head[4:8] if implicit else head[8:12], "little" if little else "big")

    def _words(self, file: BinaryIO, start: int, size: int, sample_bytes: int) -> np.ndarray[Any, Any]:
        """``size`` bytes from ``start`` on, as samples in this machine's byte order."""
        little = self._is_little
        swapped = sample_bytes == 1 and not little and self._is_ow
        odd = start % 2 if swapped else 0  # bytes written as 16-bit words lie exchanged in pairs
        file.seek(start - odd, 1)
        data = file.read(odd + size + (odd + size) % 2 if swapped else size)
        if len(data) < odd + size:
            raise Undecodable("The file ends within the pixel data.", cure=RESEND)
        if swapped:
            return np.frombuffer(data, ">u2").astype("<u2").view(np.uint8)[odd : odd + size]
        samples = np.frombuffer(data, np.dtype(f"{'<' if little else '>'}u{sample_bytes}"))
        return samples.astype(samples.dtype.newbyteorder("="), copy=False)


class PlainPicture:
    """A PNG or JPEG file: one frame."""

    sop_instance_uid = ""
    has_overlays = False
    frames = 1

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._data = path.read_bytes()
        self.rows, self.columns = _plain_size(self._data)
        _within_budget(self.rows, self.columns, max_pixels)

    def rgb(self, number: int) -> RGB:
        image = plain_rgb(self._data)
        self.rows, self.columns = image.shape[:2]  # the orientation tag may have turned it
        return image


def _read_header(path: Path) -> tuple[FileDataset, int]:
    """The data set without its pixel data, and where in the file that begins (0 when there is none)."""
    try:
        with path.open("rb") as file:
            header = dcmread(file, stop_before_pixels=True, force=True)
            at = file.tell()
            tag = file.read(4)
        if getattr(header.file_meta, "TransferSyntaxUID", None) == uid.DeflatedExplicitVRLittleEndian:
            return dcmread(path, force=True), 0
    except (InvalidDicomError, ValueError, EOFError, OSError, RecursionError, AttributeError, KeyError) as error:
        if isinstance(error, OSError) and is_fault(error):
            raise
        raise NotDicom(f"{path.name} cannot be read as DICOM ({type(error).__name__}).") from error
    except NotImplementedError as error:
        raise NotDicom(f"{path.name} holds a structure that no DICOM file has.") from error
    return header, at if tag in (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10") else 0


def _measure(header: Dataset, max_pixels: int) -> tuple[int, int, int, Layout]:
    """Rows, columns, frames and layout, checked before a byte of the pixel data is touched."""
    if "Rows" not in header or "Columns" not in header:
        raise Undecodable("The object has no pixel data.", cure="Nothing to do: it is not an image.")
    try:
        rows, columns = int(header.Rows), int(header.Columns)
        frames = int(header.get("NumberOfFrames") or 1)
        samples = int(header.get("SamplesPerPixel") or 1)
        bits = int(header.get("BitsAllocated") or 8)
    except (TypeError, ValueError) as error:
        raise Undecodable("Rows, Columns or the sample format are not numbers.", cure=RESEND) from error
    if not (0 < rows <= 65535 and 0 < columns <= 65535 and 0 < frames < 1 << 31):
        raise Undecodable(f"Impossible size: {rows} x {columns} pixels, {frames} frames.", cure=RESEND)
    if samples not in (1, 3) or bits not in (8, 16):
        raise Undecodable(f"{samples} samples of {bits} bits a pixel are not supported.", cure=RESEND)
    _within_budget(rows, columns, max_pixels)
    return rows, columns, frames, Layout(rows, columns, samples, bits)


def _within_budget(rows: int, columns: int, max_pixels: int) -> None:
    if rows * columns * 3 > max_pixels:  # whatever it is stored as, it is shown as RGB
        raise Undecodable(
            f"A frame of {rows} x {columns} pixels is over the limit of {max_pixels} samples.",
            cure="Raise SONOMARK_MAX_PIXELS if such images are real.",
        )


def _unfold_422(packed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Y1 Y2 Cb Cr for every two pixels (PS3.3, C.7.6.3.1.2) to one Y Cb Cr for each."""
    rows, pairs, _ = packed.shape
    full = np.empty((rows, pairs, 2, 3), packed.dtype)
    full[..., 0] = packed[..., :2]
    full[..., 1:] = packed[:, :, None, 2:]
    return full.reshape(rows, pairs * 2, 3)


def _plain_size(data: bytes) -> tuple[int, int]:
    """Rows and columns of a PNG or JPEG, from its header alone."""
    if data.startswith(b"\x89PNG"):
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    marks = read_jpeg_marks(data)
    return marks.rows, marks.columns
