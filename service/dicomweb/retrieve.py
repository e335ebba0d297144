"""WADO-RS (PS3.18 section 10.4): instances as they are stored, their metadata, frames, and pictures of them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Annotated, Any, BinaryIO

import cv2
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from service import logs
from service.archive.store import archive, storage
from service.db import catalogue
from service.db.catalogue import InstanceEntry
from service.db.session import database
from service.dicom.codecs import RESEND
from service.dicom.pixels import read_frames
from service.dicom.uid import named
from service.dicomweb.access import Uid, asker, base_url, caller, note
from service.dicomweb.parts import length, new_boundary, written
from service.dicomweb.store import DICOM, JSON
from service.errors import DamagedObject, NotFound, SonomarkError, Undecodable

log = logs.get(__name__)
router = APIRouter(prefix="/dicomweb", tags=["DICOMweb"])

LARGEST_INLINE = 1 << 16  # bytes of a value within the metadata; longer ones are left to the instance itself
LOOKS_AT_ONCE = 8
PROBLEM = "application/problem+json"
OCTETS = "application/octet-stream"
JPEG_QUALITY = 90

STUDY = "/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"

ARCHIVED, HEADER = "The instances as they are archived.", "Every element but the pixels."
PARTS = f'multipart/related; type="{DICOM}"'


def _giving(what: str, *media_types: str, partly: bool = False) -> dict[str, Any]:
    """How `/openapi.json` tells of an answer, and of one with some of the instances."""
    octets = {"schema": {"type": "string", "format": "binary"}}
    listed = {"schema": {"type": "array", "items": {"type": "object"}}}
    content = {each: listed if each == JSON else octets for each in media_types}
    gone = {"description": "The bytes were released by the retention policy.", "content": {PROBLEM: {}}}
    answers: dict[int, Any] = {200: {"description": what, "content": content}, 410: gone}
    if partly:
        some = "The same of some instances; the header Warning says how many are left out, and why."
        answers[206] = {"description": some, "content": content}
    return {"response_class": Response, "responses": answers}


class NotAcceptable(Undecodable):
    """The client takes nothing that can be made of what is stored."""


class Released(NotFound):
    """It was here, and its bytes were given up."""


@router.get(STUDY, **_giving(ARCHIVED, PARTS, DICOM, partly=True))
def retrieve_study(request: Request, study: Uid) -> Response:
    """Instances byte for byte as they are archived, one part each."""
    return _archived(request, study)


@router.get(SERIES, **_giving(ARCHIVED, PARTS, DICOM, partly=True))
def retrieve_series(request: Request, study: Uid, series: Uid) -> Response:
    """Instances byte for byte as they are archived, one part each."""
    return _archived(request, study, series)


@router.get(INSTANCE, **_giving(ARCHIVED, PARTS, DICOM))
def retrieve_instance(request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
    """An instance byte for byte as it is archived."""
    return _archived(request, study, series, instance)


def _archived(request: Request, study: str, series: str = "", instance: str = "") -> Response:
    found = _find(request, study, series, instance)
    _require_syntax(request, found.entries)
    if instance and "multipart" not in request.headers.get("accept", "multipart"):
        name = {"Content-Disposition": f'attachment; filename="{instance[-48:]}.dcm"'}
        whole = {"Content-Length": str(found.sizes[0])}
        return StreamingResponse(_bytes(found.entries[0], found.sizes[0]), media_type=DICOM, headers=name | whole)
    boundary = new_boundary()
    kinds = [f"{DICOM}; transfer-syntax={each.instance.transfer_syntax_uid}" for each in found.entries]
    # By its length a client, and every proxy between, knows an answer that broke off.
    whole = {"Content-Length": str(length(boundary, zip(kinds, found.sizes, strict=True)))}
    parts = zip(kinds, map(_bytes, found.entries, found.sizes), strict=True)
    return _multipart(DICOM, boundary, parts, found.status, found.headers | whole)


@router.get(STUDY + "/metadata", **_giving(HEADER, JSON, partly=True))
def study_metadata(request: Request, study: Uid) -> Response:
    """Every element but the pixels, as DICOM JSON."""
    return _headers(request, study)


@router.get(SERIES + "/metadata", **_giving(HEADER, JSON, partly=True))
def series_metadata(request: Request, study: Uid, series: Uid) -> Response:
    """Every element but the pixels, as DICOM JSON."""
    return _headers(request, study, series)


@router.get(INSTANCE + "/metadata", **_giving(HEADER, JSON))
def instance_metadata(request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
    """Every element but the pixels, as DICOM JSON."""
    return _headers(request, study, series, instance)


def _headers(request: Request, study: str, series: str = "", instance: str = "") -> Response:
    found = _find(request, study, series, instance)
    told = [_metadata(each, base_url(request)) for each in found.entries]
    return JSONResponse(told, found.status, found.headers, media_type=JSON)


@router.get(INSTANCE + "/frames/{numbers}", **_giving("The frames as they are encoded.", "multipart/related"))
def frames(request: Request, study: Uid, series: Uid, instance: Uid, numbers: str) -> Response:
    """Frames as they are encoded: native ones as octets, compressed ones in their own transfer syntax."""
    found = _one(request, study, series, instance)
    wanted = _numbers(numbers, found)
    syntax = UID(found.instance.transfer_syntax_uid)
    if not syntax.is_encapsulated:
        kind = OCTETS
    else:
        kind = _media_type(syntax)
        accepted = request.headers.get("accept", "*/*")
        if not any(each in accepted for each in ("transfer-syntax=*", "*/*", kind, str(syntax))):
            raise NotAcceptable(
                "The frames are stored compressed.", cure=f'Accept {kind}, or transfer-syntax=*, or ask for "rendered".'
            )
    content_type = f"{kind}; transfer-syntax={syntax}"
    encoded = _encoded(found, wanted)
    encoded = chain([next(encoded)], encoded)  # what is wrong with the pixel data is said by the status of the answer
    return _multipart(kind, new_boundary(), ((content_type, [data]) for data in encoded))


@router.get(INSTANCE + "/rendered", **_giving("One frame as displayed.", "image/jpeg", "image/png"))
@router.get(INSTANCE + "/frames/{numbers}/rendered", **_giving("One frame as displayed.", "image/jpeg", "image/png"))
def rendered(
    request: Request,
    study: Uid,
    series: Uid,
    instance: Uid,
    numbers: str = "1",
    quality: Annotated[int, Query(ge=1, le=100)] = JPEG_QUALITY,
) -> Response:
    """One frame as displayed: JPEG, or PNG where only that is accepted."""
    found = _one(request, study, series, instance)
    wanted = _numbers(numbers, found)[:1]
    pixels = archive().reading(found.instance.archive_key, lambda path: read_frames(path, wanted))[0]
    accepted = request.headers.get("accept", "*/*")
    as_png = "image/png" in accepted and "image/jpeg" not in accepted
    options = [] if as_png else [cv2.IMWRITE_JPEG_QUALITY, quality]
    made, data = cv2.imencode(".png" if as_png else ".jpg", pixels[:, :, ::-1], options)
    if not made:
        raise Undecodable("The frame could not be encoded.", cure="Ask for the frame itself, without `rendered`.")
    return Response(data.tobytes(), media_type="image/png" if as_png else "image/jpeg")


@dataclass(frozen=True, slots=True)
class Found:
    """Instances whose bytes are here, and the size of each; those whose bytes are not are counted."""

    entries: list[InstanceEntry]
    sizes: list[int]
    released: int
    missing: int

    @property
    def left_out(self) -> int:
        return self.released + self.missing

    @property
    def status(self) -> int:
        """PS3.18 table 10.4.3-1."""
        return 206 if self.left_out else 200

    @property
    def headers(self) -> dict[str, str]:
        if not self.left_out:
            return {}
        counts = {"released by the retention policy": self.released, "not in the archive": self.missing}
        why = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        total = len(self.entries) + self.left_out
        return {"Warning": f'299 sonomark "{self.left_out} of {total} instances are left out: {why}"'}


def _find(request: Request, study: str, series: str, instance: str) -> Found:
    """The instances of that address; the look at them is audited.

    Raises:
        NotFound: there is none, or the archive lost all of them. Released: the retention policy gave all of them up.
        StorageError: the archive does not answer.
    """
    kept, released = _kept(request, study, series, instance)
    held = [(each, size) for each, size in zip(kept, _sizes(kept), strict=True) if size is not None]
    found = Found([each for each, _ in held], [size for _, size in held], released, len(kept) - len(held))
    if found.missing:
        log.error("instances are not in the archive", study=named(study), missing=found.missing)
    if not held:
        raise NotFound("The bytes are not in the archive.", cure="`sonomark archive reconcile` says more.")
    detail = {"instances": len(held)} | ({"left_out": found.left_out} if found.left_out else {})
    note(caller(request), "dicomweb.retrieve", instance or series or study, detail)
    return found


def _one(request: Request, study: str, series: str, instance: str) -> InstanceEntry:
    """That instance, whose bytes are read next and so need no look before; it is audited."""
    kept, _ = _kept(request, study, series, instance)
    note(caller(request), "dicomweb.retrieve", instance, {"instances": 1})
    return kept[0]


def _kept(request: Request, study: str, series: str, instance: str) -> tuple[list[InstanceEntry], int]:
    """The instances of that address whose bytes were not given up, and how many were."""
    with database().read() as session:
        known = catalogue.require(session, asker(request), study, series, instance)
    kept = [each for each in known if not each.released]
    if not kept:
        raise Released("The bytes were released by the retention policy.", cure="Ask the PACS for the study.")
    return kept, len(known) - len(kept)


def _sizes(of: list[InstanceEntry]) -> list[int | None]:
    """Of each instance's bytes; None where the archive has none. Several looks at once, for a bucket is far away."""
    keys = [each.instance.archive_key for each in of]
    with storage("The archive cannot be looked into"), ThreadPoolExecutor(LOOKS_AT_ONCE) as looks:
        return list(looks.map(archive().size, keys))


def _bytes(of: InstanceEntry, size: int) -> Iterator[bytes]:
    """The instance's bytes, of which the answer has said that there are so many.

    Its status is sent by then. What happens to the file from here on can only break the answer off, which the server
    does when this raises: to end it would be to call it whole.
    """
    rest = size
    try:
        for chunk in archive().stream(of.instance.archive_key):
            rest -= len(chunk)
            if rest < 0:
                break
            yield chunk
        if rest:
            raise DamagedObject("An instance's bytes changed while they were sent.")
    except SonomarkError as error:
        log.error("answer broken off", instance=named(of.instance.sop_instance_uid), reason=type(error).__name__)
        raise


def _multipart(
    kind: str,
    boundary: str,
    parts: Iterable[tuple[str, Iterable[bytes]]],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    media_type = f'multipart/related; type="{kind}"; boundary={boundary}'
    return StreamingResponse(written(boundary, parts), status, headers, media_type)


def _require_syntax(request: Request, found: list[InstanceEntry]) -> None:
    """Instances go out as they came: a client that insists on another transfer syntax is told so."""
    accepted = request.headers.get("accept", "*/*").replace('"', "").replace(" ", "")
    ranges = [each.partition("transfer-syntax=")[2].split(";")[0] for each in accepted.split(",")]
    asked = {syntax for syntax in ranges if syntax}
    if asked and "*" not in asked and any(each.instance.transfer_syntax_uid not in asked for each in found):
        raise NotAcceptable("The instances are stored in another transfer syntax.", cure="Accept transfer-syntax=*.")


def _metadata(of: InstanceEntry, base: str) -> dict[str, Any]:
    with storage("The instance's bytes cannot be read"):
        data_set = dcmread(archive().path(of.instance.archive_key), stop_before_pixels=True)
    where = (
        f"{base}/studies/{of.study.study_instance_uid}/series/{of.series.series_instance_uid}"
        f"/instances/{of.instance.sop_instance_uid}"
    )

    def elsewhere(_: DataElement) -> str:
        return where

    told: dict[str, Any] = data_set.to_json_dict(LARGEST_INLINE, elsewhere, suppress_invalid_tags=True)
    told["00083002"] = {"vr": "UI", "Value": [of.instance.transfer_syntax_uid]}
    if of.instance.number_of_frames:
        told["7FE00010"] = {"vr": "OW", "BulkDataURI": f"{where}/frames/1"}
    finite: dict[str, Any] = _finite(told)
    return finite


def _finite(told: Any) -> Any:
    """The same with words for numbers that are none: JSON has no other way to write them."""
    if isinstance(told, dict):
        return {name: _finite(each) for name, each in told.items()}
    if isinstance(told, list):
        return [_finite(each) for each in told]
    if isinstance(told, float) and not math.isfinite(told):
        return "NaN" if math.isnan(told) else str(told)  # inf, -inf
    return told


def _numbers(text: str, of: InstanceEntry) -> list[int]:
    parts = text.replace("%2C", ",").split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts) or len(parts) > 1000:
        raise NotFound("Frames are named by their numbers, separated by commas.", cure="Write /frames/1,2,3.")
    numbers = [int(part) for part in parts]
    if not all(1 <= number <= of.instance.number_of_frames for number in numbers):
        last = of.instance.number_of_frames
        raise NotFound(f"This instance's last frame is {last}.", cure=f"Ask for frames 1 to {last}.")
    return numbers


def _encoded(of: InstanceEntry, numbers: list[int]) -> Iterator[bytes]:
    """The frames' bytes as they stand in the pixel data, without decoding any; of a long cine no others are read."""
    syntax, count = UID(of.instance.transfer_syntax_uid), of.instance.number_of_frames
    with storage("The instance's bytes cannot be read"), archive().path(of.instance.archive_key).open("rb") as file:
        header = dcmread(file, stop_before_pixels=True)
        if syntax == DeflatedExplicitVRLittleEndian:
            file.seek(0)
            inflated = dcmread(file).PixelData
            pixels: BinaryIO = BytesIO(inflated)
            length = len(inflated)
        else:
            # Tag and length of the pixel data; with an explicit VR, that and two reserved bytes between (PS3.5, 7.1).
            head = file.read(8 if syntax.is_implicit_VR else 12)
            pixels, length = file, int.from_bytes(head[-4:], "little" if syntax.is_little_endian else "big")
        if syntax.is_encapsulated:
            tables = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
            start = pixels.tell()
            for number in numbers:
                pixels.seek(start)
                yield _encapsulated(pixels, number, count, tables if all(tables) else None)
            return
        frame = _octets(header)
        if frame * count > length:
            raise Undecodable("The pixel data is shorter than its header says.", cure=RESEND)
        start = pixels.tell()
        for number in numbers:
            pixels.seek(start + (number - 1) * frame)
            yield pixels.read(frame)


def _octets(header: Dataset) -> int:
    """Of one native frame (PS3.3 section C.7.6.3)."""
    try:
        bits: int = header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated
    except (AttributeError, TypeError) as error:
        raise Undecodable("The header does not say how large a frame is.", cure=RESEND) from error
    # Two pixels in a row share their colour: four samples in place of six.
    return bits // 8 * 2 // 3 if header.get("PhotometricInterpretation") == "YBR_FULL_422" else bits // 8


def _encapsulated(pixels: BinaryIO, number: int, count: int, tables: tuple[bytes, bytes] | None) -> bytes:
    """One frame of encapsulated pixel data, from its first item on (PS3.5, A.4)."""
    try:
        return get_frame(pixels, number - 1, extended_offsets=tables, number_of_frames=count)
    except (ValueError, EOFError, StopIteration) as error:
        raise Undecodable(f"Frame {number} of {count} is not in the pixel data.", cure=RESEND) from error


def _media_type(syntax: UID) -> str:
    """PS3.18 table 8.7.3-5."""
    text = str(syntax)
    if text.startswith(("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.70")):
        return "image/jpeg"
    if text in ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"):
        return "image/jls"
    if text in ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"):
        return "image/jp2"
    if text in ("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"):
        return "image/jpx"
    if text in ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"):
        return "image/jphc"
    if text in ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"):
        return "image/jxl"
    if text == "1.2.840.10008.1.2.5":
        return "image/dicom-rle"
    return OCTETS
