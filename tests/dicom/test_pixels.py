"""Frames as displayed, through the real decoder process."""

import io
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import jpeg_ls
import numpy as np
import pytest
import simplejpeg
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import generate_uid
from rle import encode_pixel_data

from service.dicom import pixels
from service.dicom.pixels import RGB, Decoder, iterate_frames, look, read_frames
from service.errors import DecoderFailed, DicomError, NotDicom, NotFound, Undecodable, Unreadable
from service.settings import Settings
from tests.descriptors import no_descriptor_left
from tests.faults.tracing import window

ROWS, COLUMNS = 48, 64
JPEG_XL = uid.UID("1.2.840.10008.1.2.4.110")
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_limits(house: Settings) -> Iterator[None]:
    pixels.close_decoders()
    yield
    pixels.close_decoders()


@pytest.fixture(scope="module")
def screen() -> RGB:
    """An ultrasound screen in small: black, grey speckle, a yellow cross, some red and blue flow."""
    rng = np.random.default_rng(7)
    frame = np.zeros((ROWS, COLUMNS, 3), np.uint8)
    frame[8:40, 8:56] = cv2.GaussianBlur(rng.integers(20, 160, (32, 48), np.uint8), (5, 5), 2)[..., None]
    frame[20, 20:31] = frame[15:26, 25] = (255, 255, 0)
    frame[28:36, 36:44], frame[28:36, 44:52] = (200, 30, 20), (20, 40, 210)
    return frame


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(data: bytes, syntax: str, photometric: str, samples: int = 3, **elements: Any) -> Path:
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.6.1", generate_uid()
        header.Rows, header.Columns = ROWS, COLUMNS
        header.SamplesPerPixel, header.PhotometricInterpretation = samples, photometric
        header.BitsAllocated = header.BitsStored = 8
        header.HighBit, header.PixelRepresentation = 7, 0
        if samples == 3:
            header.PlanarConfiguration = 0
        known = uid.HTJ2K if syntax == JPEG_XL else uid.UID(syntax)  # pydicom does not write what it does not know
        encapsulated = known.is_encapsulated
        header.PixelData = data if not encapsulated or data[:4] == b"\xfe\xff\x00\xe0" else encapsulate([data])
        header["PixelData"].VR = "OB"
        for keyword, value in elements.items():
            setattr(header, keyword, value)
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = known
        path = tmp_path / f"{header.SOPInstanceUID}.dcm"
        header.save_as(
            path,
            enforce_file_format=True,
            little_endian=syntax != uid.ExplicitVRBigEndian,
            implicit_vr=syntax == uid.ImplicitVRLittleEndian,
        )
        if syntax != known:
            path.write_bytes(path.read_bytes().replace(known.encode(), syntax.encode(), 1))
        return path

    return write_file


def ybr(frame: RGB) -> RGB:
    return np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]])


def folded_422(frame: RGB) -> bytes:
    full = ybr(frame).reshape(ROWS, COLUMNS // 2, 2, 3)
    return np.concatenate([full[..., 0], full[:, :, 0, 1:]], axis=2).tobytes()


def rle(frame: RGB) -> bytes:
    shape = {"rows": ROWS, "columns": COLUMNS, "samples_per_pixel": 3, "number_of_frames": 1}
    return bytes(encode_pixel_data(frame.tobytes(), **shape, bits_allocated=8, byteorder="<"))


def jpeg(frame: RGB, subsampling: str = "444") -> bytes:
    return simplejpeg.encode_jpeg(frame, quality=98, colorsubsampling=subsampling)


def jpeg_planes(planes: RGB, ids: bytes) -> bytes:
    """A JPEG whose three components are stored as they are, under these component ids, without JFIF or Adobe."""
    data = imagecodecs.jpeg8_encode(planes, level=98, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    kept, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        segment = bytearray(data[at : at + 2 + length])
        if data[at + 1] == 0xC0:
            segment[10::3] = ids
        if data[at + 1] not in (0xE0, 0xEE):
            kept += segment
        at += 2 + length
    scan = bytearray(data[at:])
    scan[5:11:2] = ids
    return bytes(kept + scan)


NATIVE: dict[str, Callable[[RGB], tuple[bytes, str, str, dict[str, Any]]]] = {
    "explicit little": lambda f: (f.tobytes(), uid.ExplicitVRLittleEndian, "RGB", {}),
    "implicit little": lambda f: (f.tobytes(), uid.ImplicitVRLittleEndian, "RGB", {}),
    "deflated": lambda f: (f.tobytes(), uid.DeflatedExplicitVRLittleEndian, "RGB", {}),
    "big endian": lambda f: (f.tobytes(), uid.ExplicitVRBigEndian, "RGB", {}),
    "planes": lambda f: (f.transpose(2, 0, 1).tobytes(), uid.ExplicitVRLittleEndian, "RGB", {"PlanarConfiguration": 1}),
    "YBR_FULL": lambda f: (ybr(f).tobytes(), uid.ExplicitVRLittleEndian, "YBR_FULL", {}),
    "YBR_FULL_422 that is not subsampled": lambda f: (
        ybr(f).tobytes(), uid.ExplicitVRLittleEndian, "YBR_FULL_422", {},
    ),
}  # fmt: skip
COMPRESSED: dict[str, Callable[[RGB], tuple[bytes, str, str]]] = {
    "RLE RGB": lambda f: (rle(f), uid.RLELossless, "RGB"),
    "RLE YBR_FULL": lambda f: (rle(ybr(f)), uid.RLELossless, "YBR_FULL"),
    "JPEG": lambda f: (jpeg(f), uid.JPEGBaseline8Bit, "YBR_FULL"),
    "JPEG that is YBR and says RGB": lambda f: (jpeg(f), uid.JPEGBaseline8Bit, "RGB"),
    "JPEG of RGB components that says YBR": lambda f: (
        jpeg_planes(f, b"RGB"), uid.JPEGBaseline8Bit, "YBR_FULL_422",
    ),
    "JPEG of RGB without any marker": lambda f: (jpeg_planes(f, b"\1\2\3"), uid.JPEGBaseline8Bit, "YBR_FULL_422"),
    "JPEG of YBR without any marker, said RGB": lambda f: (
        jpeg_planes(ybr(f), b"\1\2\3"), uid.JPEGBaseline8Bit, "RGB",
    ),
    "JPEG lossless": lambda f: (
        imagecodecs.ljpeg_encode(f[..., 0], bitspersample=8), uid.JPEGLosslessSV1, "MONOCHROME2",
    ),
    "JPEG-LS": lambda f: (bytes(jpeg_ls.encode_array(f)), uid.JPEGLSLossless, "RGB"),
    "JPEG 2000 with component transform": lambda f: (
        bytes(encode_array(f, photometric_interpretation=1, use_mct=True)), uid.JPEG2000Lossless, "YBR_RCT",
    ),
    "JPEG 2000 without": lambda f: (
        bytes(encode_array(f, photometric_interpretation=1, use_mct=False)), uid.JPEG2000Lossless, "RGB",
    ),
    "HTJ2K": lambda f: (imagecodecs.htj2k_encode(f), uid.HTJ2KLossless, "RGB"),
    "JPEG XL": lambda f: (imagecodecs.jpegxl_encode(f, lossless=True), JPEG_XL, "RGB"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NATIVE)
def test_uncompressed_frames_are_shown_as_they_were_drawn(write: Write, screen: RGB, kind: str) -> None:
    data, syntax, photometric, elements = NATIVE[kind](screen)
    (frame,) = read_frames(write(data, syntax, photometric, **elements))
    assert np.abs(frame.astype(int) - screen).max() <= (2 if "YBR" in kind else 0)


def test_subsampled_colour_is_unfolded(write: Write, screen: RGB) -> None:
    (frame,) = read_frames(write(folded_422(screen), uid.ExplicitVRLittleEndian, "YBR_FULL_422"))
    pairs = np.repeat(screen[:, ::2], 2, axis=1)
    assert np.abs(frame[:, ::2].astype(int) - pairs[:, ::2]).max() <= 2


def test_bytes_written_as_words_are_swapped_back(write: Write, screen: RGB) -> None:
    swapped = screen.reshape(-1, 2)[:, ::-1].tobytes() * 2
    path = write(swapped, uid.ExplicitVRBigEndian, "RGB", NumberOfFrames=2)
    path.write_bytes(path.read_bytes().replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW"))
    for frame in read_frames(path):
        assert (frame == screen).all()


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_frames_are_shown_as_they_were_drawn(write: Write, screen: RGB, kind: str) -> None:
    data, syntax, photometric = COMPRESSED[kind](screen)
    mono = photometric == "MONOCHROME2"
    (frame,) = read_frames(write(data, syntax, photometric, 1 if mono else 3))
    expected = np.repeat(screen[..., :1], 3, axis=2) if mono else screen
    error = np.abs(frame.astype(int) - expected)
    assert error.mean() <= (1.5 if "JPEG" in kind else 1.0) and np.percentile(error, 95) <= 8


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("little", [True, False])
def test_palettes_are_applied(write: Write, bits: int, little: bool) -> None:
    indices = np.arange(ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS) % 256
    table = np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 77)])
    kind = "u1" if bits == 8 else "<u2" if little else ">u2"
    words = (table * (1 if bits == 8 else 257)).astype(kind)
    elements: dict[str, Any] = {}
    for color, column in zip(("Red", "Green", "Blue"), words, strict=True):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{color}PaletteColorLookupTableData"] = column.tobytes()
    path = write(
        indices.astype("u1").tobytes(),
        uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian,
        "PALETTE COLOR",
        samples=1,
        **elements,
    )
    (frame,) = read_frames(path)
    assert (frame == table.T[indices]).all()


def test_palettes_of_16_bits_that_hold_8_are_not_shown_black(write: Write) -> None:
    indices = np.tile(np.arange(COLUMNS, dtype=np.uint8), (ROWS, 1))
    ramp = np.arange(256, dtype="<u2")
    elements = {}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{color}PaletteColorLookupTableData"] = ramp.tobytes()
    (frame,) = read_frames(write(indices.tobytes(), uid.ExplicitVRLittleEndian, "PALETTE COLOR", 1, **elements))
    assert (frame[..., 0] == indices).all()


def test_values_outside_the_palette_take_its_ends(write: Write) -> None:
    indices = np.tile(np.arange(COLUMNS, dtype=np.uint8), (ROWS, 1))
    elements = {}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [4, 10, 8]
        elements[f"{color}PaletteColorLookupTableData"] = bytes([1, 2, 3, 4])
    (frame,) = read_frames(write(indices.tobytes(), uid.ExplicitVRLittleEndian, "PALETTE COLOR", 1, **elements))
    assert (frame[0, :, 0] == np.clip(np.arange(COLUMNS) - 10, 0, 3) + 1).all()


def test_segmented_palettes_are_expanded(write: Write) -> None:
    indices = np.tile(np.arange(COLUMNS, dtype=np.uint8), (ROWS, 1))
    # One discrete entry 0, then a line of 63 steps up to 252 * 257.
    segments = struct.pack("<6H", 0, 1, 0, 1, 63, 252 * 257)
    elements = {}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [64, 0, 16]
        elements[f"Segmented{color}PaletteColorLookupTableData"] = segments
    (frame,) = read_frames(write(indices.tobytes(), uid.ExplicitVRLittleEndian, "PALETTE COLOR", 1, **elements))
    assert np.abs(frame[0, :, 0].astype(int) - np.arange(64) * 4).max() <= 1


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, lambda x: x),
        ({"PhotometricInterpretation": "MONOCHROME1"}, lambda x: 255 - x),
        ({"PresentationLUTShape": "INVERSE"}, lambda x: 255 - x),
        ({"WindowCenter": 100, "WindowWidth": 101}, lambda x: np.clip((x - 49.5) / 100 * 255, 0, 255)),
        ({"WindowCenter": [100, 7], "WindowWidth": [101, 9]}, lambda x: np.clip((x - 49.5) / 100 * 255, 0, 255)),
        (
            {"WindowCenter": 100, "WindowWidth": 100, "VOILUTFunction": "LINEAR_EXACT"},
            lambda x: np.clip((x - 50) / 100 * 255, 0, 255),
        ),
        (
            {"WindowCenter": 100, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"},
            lambda x: 255 / (1 + np.exp(-4 * (x - 100) / 100)),
        ),
        (
            {"RescaleSlope": "2", "RescaleIntercept": "-10", "WindowCenter": 190, "WindowWidth": 201},
            lambda x: np.clip((2 * x - 10 - 89.5) / 200 * 255, 0, 255),
        ),
    ],
)
def test_greys_are_windowed(write: Write, elements: dict[str, Any], expected: Callable[[Any], Any]) -> None:
    values = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 256
    path = write(values.astype("u1").tobytes(), uid.ExplicitVRLittleEndian, "MONOCHROME2", 1, **elements)
    (frame,) = read_frames(path)
    assert (frame[..., 0] == frame[..., 2]).all()
    assert np.abs(frame[..., 1] - expected(values.astype(float))).max() <= 1


@pytest.mark.parametrize("big", [False, True])
def test_signed_words_with_a_window(write: Write, big: bool) -> None:
    values = np.linspace(-500, 500, ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(">i2" if big else "<i2")
    path = write(
        values.tobytes(),
        uid.ExplicitVRBigEndian if big else uid.ExplicitVRLittleEndian,
        "MONOCHROME2",
        samples=1,
        BitsAllocated=16,
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=1,
        WindowCenter=0.5,
        WindowWidth=1001,
    )
    (frame,) = read_frames(path)
    assert np.abs(frame[..., 0] - (values.astype(float) + 500) / 1000 * 255).max() <= 1


def test_words_without_a_window_show_what_they_hold(write: Write) -> None:
    values = np.linspace(1000, 1400, ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype("<u2")
    path = write(
        values.tobytes(), uid.ExplicitVRLittleEndian, "MONOCHROME2", 1, BitsAllocated=16, BitsStored=12, HighBit=11
    )
    (frame,) = read_frames(path)
    assert frame.min() == 0 and frame.max() == 255


def test_only_the_frames_asked_for_are_decoded(write: Write, screen: RGB) -> None:
    good, broken = jpeg(screen), b"\xff\xd8broken\xff\xd9"
    frames = [broken] * 1000 + [good] + [broken] * 999
    path = write(encapsulate(frames, has_bot=False), uid.JPEGBaseline8Bit, "YBR_FULL_422", NumberOfFrames=2000)
    assert look(path).frames == 2000
    (frame,) = read_frames(path, [1001])
    assert np.abs(frame.astype(int) - screen).mean() < 2
    with pytest.raises(Undecodable):
        read_frames(path, [1000])


def test_frames_in_several_fragments_are_joined(write: Write, screen: RGB) -> None:
    whole = jpeg(screen)
    data = encapsulate([whole, whole], fragments_per_frame=3, has_bot=True)
    for frame in read_frames(write(data, uid.JPEGBaseline8Bit, "YBR_FULL", NumberOfFrames=2)):
        assert np.abs(frame.astype(int) - screen).mean() < 2


def test_half_a_jpeg_file_is_refused(tmp_path: Path, screen: RGB) -> None:
    """Its decoder would show grey below, in which no mark is found."""
    whole = jpeg(screen)
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Undecodable, match="cut off"):
        read_frames(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes(whole + b"what a modality appends")
    assert len(read_frames(tmp_path / "cut.jpg")) == 1


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_plain_pictures_are_read(tmp_path: Path, screen: RGB, suffix: str) -> None:
    path = tmp_path / f"screen.{suffix}"
    Image.fromarray(screen).save(path, **({"quality": 98, "subsampling": 0} if suffix == "jpg" else {}))
    assert look(path).sop_instance_uid == ""
    (frame,) = read_frames(path)
    assert np.abs(frame.astype(int) - screen).mean() < 2


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "too short": ({"PixelData": b"\0" * 100}, "too short"),
    "over the pixel budget": ({"Rows": 65535, "Columns": 65535}, "limit"),
    "no rows": ({"Rows": 0}, "Impossible"),
    "more frames than bytes": ({"NumberOfFrames": 100000}, "too short"),
    "bits nobody has": ({"BitsAllocated": 64, "BitsStored": 64}, "not supported"),
    "more bits stored than allocated": ({"BitsStored": 12}, "Bits Stored"),
    "two samples": ({"SamplesPerPixel": 2}, "not supported"),
    "unknown colour space": ({"PhotometricInterpretation": "HSV"}, "HSV"),
    "palette without a palette": ({"PhotometricInterpretation": "PALETTE COLOR", "SamplesPerPixel": 1}, "palette"),
}


@pytest.mark.parametrize("what", BAD)
def test_headers_that_cannot_be_are_refused_with_a_reason_and_a_cure(write: Write, screen: RGB, what: str) -> None:
    elements, reason = BAD[what]
    path = write(screen.tobytes(), uid.ExplicitVRLittleEndian, "RGB", **elements)
    with pytest.raises(Undecodable, match=reason) as refused:
        read_frames(path, [1])
    assert refused.value.cure


def test_an_object_without_pixels_says_so(write: Write) -> None:
    from pydicom import dcmread

    path = write(b"\0\0", uid.ExplicitVRLittleEndian, "RGB")
    data = dcmread(path)
    del data.PixelData
    data.save_as(path)
    with pytest.raises(Undecodable, match="no pixel data"):
        look(path)


def test_a_codestream_larger_than_its_header_is_not_decoded(write: Write) -> None:
    huge = io.BytesIO()
    Image.new("RGB", (12000, 12000)).save(huge, "JPEG")
    with pytest.raises(Undecodable, match="12000"):
        read_frames(write(huge.getvalue(), uid.JPEGBaseline8Bit, "YBR_FULL"))


def test_a_syntax_nobody_decodes_says_what_to_do(write: Write) -> None:
    with pytest.raises(Undecodable, match="MPEG") as refused:
        read_frames(write(b"\0\0\1\xb3" + b"\0" * 60, uid.MPEG2MPML, "YBR_FULL"))
    assert "Export" in refused.value.cure


@pytest.mark.parametrize("content", [b"", b"GIF89a" + b"\0" * 200, b"%PDF-1.4", b"\0" * 128 + b"DICM" + b"\xff" * 50])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    with pytest.raises(DicomError):
        read_frames(path)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        look(tmp_path / "nothing.dcm")


@pytest.fixture
def decoder() -> Decoder:
    """The one that the next file goes to."""
    pixels.start_decoder()
    (waiting,) = pixels._decoders._idle
    return waiting


@pytest.mark.parametrize("kind", ["native", "compressed"])
def test_a_file_that_cannot_be_opened_for_a_moment_is_no_damaged_image(
    write: Write, screen: RGB, decoder: Decoder, kind: str
) -> None:
    path = _of_two_frames(write, screen, kind)
    with no_descriptor_left(decoder._process.pid), pytest.raises(Unreadable, match="Too many open files"):
        look(path)
    assert look(path).frames == 2
    with no_descriptor_left(decoder._process.pid), pytest.raises(Unreadable) as told:
        read_frames(path, [2])
    assert path.name in told.value.what and told.value.cure
    assert len(read_frames(path)) == 2
    assert pixels._decoders._idle == [decoder]  # it is none the worse for it


@pytest.mark.parametrize("kind", ["native", "compressed"])
@pytest.mark.parametrize("passed", [0, 1, 2])
def test_a_disk_that_fails_while_it_is_read_is_not_the_images_fault(
    write: Write, screen: RGB, decoder: Decoder, kind: str, passed: int
) -> None:
    """At the file's beginning, in its header, in its pixel data."""
    path = _of_two_frames(write, screen, kind)
    failing = window(decoder._process.pid, "read", f"error=EIO:when={passed + 1}+", only=[path])
    with failing, pytest.raises(Unreadable, match="Input/output error"):
        read_frames(path, [2])
    assert len(read_frames(path, [2])) == 1


def test_a_place_that_no_file_has_is_the_images_fault(write: Write, screen: RGB) -> None:
    path = _of_two_frames(write, screen, "compressed", ExtendedOffsetTable=struct.pack("<2Q", 0, 2**63 - 1))
    with pytest.raises(Undecodable):
        read_frames(path, [2])


def _of_two_frames(write: Write, screen: RGB, kind: str, **elements: Any) -> Path:
    if kind == "native":
        return write(screen.tobytes() * 2, uid.ExplicitVRLittleEndian, "RGB", NumberOfFrames=2)
    frames = [jpeg(screen), jpeg(screen)]
    if elements:
        elements["ExtendedOffsetTableLengths"] = struct.pack("<2Q", *map(len, frames))
    data = encapsulate(frames, has_bot=not elements)
    return write(data, uid.JPEGBaseline8Bit, "YBR_FULL", NumberOfFrames=2, **elements)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested = struct.pack("<HH2sHL", 0x0040, 0x0275, b"SQ", 0, 0xFFFFFFFF) + item
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    path = tmp_path / "nested.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + meta + nested * 20000)
    with pytest.raises(NotDicom):
        look(path)


def test_truncation_at_any_place_is_an_error_and_never_a_picture(write: Write, screen: RGB) -> None:
    whole = write(screen.tobytes(), uid.ExplicitVRLittleEndian, "RGB").read_bytes()
    cut = write(screen.tobytes(), uid.ExplicitVRLittleEndian, "RGB")
    for length in [*range(130, len(whole) - len(screen.tobytes()) + 20, 7), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(DicomError):
            read_frames(cut)


def test_a_decoder_that_hangs_is_ended(write: Write, screen: RGB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "GRACE_S", 0.2)
    decoder = Decoder()
    decoder.ask(write(screen.tobytes(), uid.ExplicitVRLittleEndian, "RGB"))
    decoder._deadline_s = 0.2
    os.kill(decoder._process.pid, signal.SIGSTOP)
    decoder.send(write(screen.tobytes(), uid.ExplicitVRLittleEndian, "RGB"), 1)
    with pytest.raises(DecoderFailed, match="did not finish"):
        decoder.receive_frame()
    decoder.close()


def test_a_decoder_that_crashes_takes_nobody_with_it(write: Write, screen: RGB) -> None:
    path = write(screen.tobytes(), uid.ExplicitVRLittleEndian, "RGB", NumberOfFrames=1)
    look(path)
    (victim,) = pixels._decoders._idle
    frames = iterate_frames(path, [1, 1, 1])
    next(frames)
    os.kill(victim._process.pid, signal.SIGSEGV)
    with pytest.raises(DecoderFailed, match="SIGSEGV"):
        list(frames)
    assert (read_frames(path)[0] == screen).all()


def test_a_deflate_bomb_ends_at_the_memory_limit(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.settings import settings

    monkeypatch.setenv("SONOMARK_DECODE_MEMORY_MB", "256")
    settings.cache_clear()
    bomb = write(b"\0" * (600 << 20), uid.DeflatedExplicitVRLittleEndian, "RGB")
    assert bomb.stat().st_size < 2 << 20
    with pytest.raises(DecoderFailed, match="memory") as refused:
        look(bomb)
    assert "DECODE_MEMORY_MB" in refused.value.cure


def test_many_threads_read_at_once(write: Write, screen: RGB) -> None:
    paths = [write(np.roll(screen, n, axis=1).tobytes(), uid.ExplicitVRLittleEndian, "RGB") for n in range(6)]
    wrong: list[bool] = []

    def read(n: int) -> None:
        expected = np.roll(screen, n, axis=1)
        wrong.extend(bool((read_frames(paths[n])[0] != expected).any()) for _ in range(10))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 60


def test_a_decoder_ends_with_the_process_that_started_it(write: Write, screen: RGB) -> None:
    decoder = Decoder()
    assert decoder._process.stdin is not None
    decoder._process.stdin.close()
    deadline = time.monotonic() + 10
    while decoder._process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert decoder._process.returncode == 0


def test_real_files_are_decoded_as_pydicom_decodes_them(real_data: Path) -> None:
    files = sorted((real_data / "dicom").glob("*.dcm"))
    assert len(files) == 22
    compared = 0
    for path in files:
        frame = read_frames(path, [1])[0]
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.std() > 1, path.name
        try:
            expected = pixel_array(path, index=0)
        except (RuntimeError, ValueError):
            continue  # JPEG Lossless without GPL code and JPEG XL are beyond it
        if expected.shape == frame.shape:
            assert np.abs(frame.astype(int) - expected).max() <= 1, path.name
            compared += 1
    assert compared >= 16


BEYOND_THE_THOUSANDTH = """
import os, resource, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]

from pathlib import Path
from service.dicom.pixels import read_frames
print(read_frames(Path(sys.argv[1]))[0].shape)
"""


def test_a_process_with_more_than_a_thousand_descriptors_reads_frames(tmp_path: Path) -> None:
    """As a dashboard with many viewers has them; `select` knows 1024."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this machine allows fewer descriptors")
    cv2.imwrite(str(tmp_path / "frame.png"), np.zeros((ROWS, COLUMNS, 3), np.uint8))
    command = [sys.executable, "-c", BEYOND_THE_THOUSANDTH, str(tmp_path / "frame.png")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == f"{(ROWS, COLUMNS, 3)}\n", ended.stderr[-600:]
