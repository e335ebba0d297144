"""STOW-RS (PS3.18 section 10.5): instances come in by HTTP, and go the same way as those of a C-STORE.

Each part goes straight to a temporary file; what makes it durable, checks and queues it is the receiver's own intake.
"""

from functools import lru_cache
from secrets import token_hex
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service import logs, telemetry
from service.archive.store import archive
from service.db import studies
from service.db.session import database
from service.dicom.header import FileMeta, Header, file_meta
from service.dicomweb.access import Caller, Uid, base_url, caller, note
from service.dicomweb.parts import BadBody, Reader, boundary_of
from service.errors import DataSetMismatch, NotAllowed, NotDicom, OutOfSpace, SonomarkError
from service.receive.contexts import TRANSFER_SYNTAXES, storage_classes
from service.receive.incoming import Berth, Incoming, StoreRequest
from service.receive.intake import Intake
from service.receive.status import Status, answer
from service.settings import settings

router = APIRouter(prefix="/dicomweb", tags=["DICOMweb"])
log = logs.get(__name__)

DICOM = "application/dicom"
JSON = "application/dicom+json"
# How `/openapi.json` tells of the answers (PS3.18, 10.5).
STORING: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        status: {"description": words, "content": {JSON: {"schema": {"type": "object"}}}}
        for status, words in ((200, "All are stored."), (202, "Some are stored."), (409, "None is stored."))
    },
}
LONGEST_META = 1 << 16
MOST_PARTS = 10_000  # of a request: its answer names each, and nothing else bounds how many there are
CALLING = 16  # characters of an AE title

# Failure reasons beside those of C-STORE (PS3.18 section I.2.2, PS3.7 annex C).
SOP_CLASS_NOT_SUPPORTED, TRANSFER_SYNTAX_NOT_SUPPORTED, NOT_AUTHORIZED = 0x0122, 0xC122, 0x0124


class Unsupported(DataSetMismatch):
    """A SOP class or transfer syntax that C-STORE would not negotiate either."""

    def __init__(self, what: str, reason: int) -> None:
        super().__init__(what)
        self.reason = reason


@lru_cache
def intake() -> Intake:
    """This process's way into archive and queue."""
    chosen = settings()
    archive().prepare()
    return Intake(archive(), database(), chosen.settle_after, chosen.disk_reserve_mb << 20)


class Storing:
    """The parts of one request, each an instance."""

    def __init__(self, who: Caller, study_instance_uid: str, base: str) -> None:
        self.stored: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []
        self.unnamed: list[dict[str, Any]] = []  # failures of parts that say of no instance
        self._who = who
        self._study = study_instance_uid
        self._base = base
        self._parts = 0
        self._correlation_id = token_hex(16)
        self._berth = Berth(archive())
        self._head = b""
        self._meta: FileMeta | None = None
        self._incoming: Incoming | None = None
        self._failure: SonomarkError | None = None

    def begin(self, media_type: str) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise BadBody(f"A request has at most {MOST_PARTS:,} parts.")
        self._head, self._meta, self._incoming, self._failure = b"", None, None, None
        if media_type != DICOM:
            self._failure = NotDicom(f"A part's media type is not {DICOM}.")
        else:
            self._failure = _no_room()

    def write(self, data: memoryview) -> None:
        if self._failure is not None:
            return
        if self._incoming is not None:
            self._incoming.write(data)
            return
        self._head += data
        if len(self._head) >= LONGEST_META:
            self._open()

    def end(self) -> None:
        try:
            if self._failure is None and self._incoming is None:
                self._open()
            if self._failure is not None:
                raise self._failure
            self._take()
        except Exception as error:  # noqa: BLE001 - whatever broke, the client hears of each instance
            self._note_failure(error)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget a part that did not arrive completely."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.discard()

    def cut_off(self) -> None:
        """The body ended before its last boundary."""
        self.unnamed.append(_reason(Status.CANNOT_UNDERSTAND))

    @property
    def failures(self) -> list[dict[str, Any]]:
        return self.failed + self.unnamed

    def response(self) -> tuple[int, dict[str, Any]]:
        """HTTP status and Store Instances Response Module (PS3.18 section 10.5.3)."""
        body: dict[str, Any] = {}
        if self._study:
            body["00081190"] = {"vr": "UR", "Value": [f"{self._base}/studies/{self._study}"]}
        if self.stored:
            body["00081199"] = {"vr": "SQ", "Value": self.stored}
        if self.failed:
            body["00081198"] = {"vr": "SQ", "Value": self.failed}
        if self.unnamed:
            body["0008119A"] = {"vr": "SQ", "Value": self.unnamed}
        if not self.failures:
            return (200 if self.stored else 400), body
        if self.stored:
            return 202, body
        reasons = {failure["00081197"]["Value"][0] for failure in self.failures}
        return (503 if reasons == {Status.OUT_OF_RESOURCES} else 409), body

    def _open(self) -> None:
        """The File Meta Information is here: make room for the data set behind it."""
        try:
            self._meta = meta = file_meta(self._head)
            if meta.transfer_syntax_uid not in TRANSFER_SYNTAXES:
                raise Unsupported("The transfer syntax is not supported.", TRANSFER_SYNTAX_NOT_SUPPORTED)
            if meta.sop_class_uid not in storage_classes(settings().extra_sop_classes):
                raise Unsupported("The SOP class is not supported.", SOP_CLASS_NOT_SUPPORTED)
        except SonomarkError as error:
            self._failure = error
            return
        request = StoreRequest(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            context_sop_class_uid=meta.sop_class_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            calling_ae_title=self._who.user.name[:CALLING],
            correlation_id=self._correlation_id,
        )
        self._incoming = Incoming(self._berth, request)
        self._incoming.write(self._head[meta.position :])
        self._head = b""

    def _take(self) -> None:
        assert self._incoming is not None and self._meta is not None
        self._incoming.require_whole()
        header = self._incoming.header()
        if self._study and header.study_instance_uid != self._study:
            raise DataSetMismatch("The instance belongs to another study than the address says.")
        self._require_own(header)
        registration = intake().take(self._incoming)
        telemetry.STORED.labels(status=Status.SUCCESS.label).inc()
        log.info(
            "stored" if registration.created else "stored before",
            sop_instance_uid=self._meta.sop_instance_uid,
            octets=self._incoming.size,
            conflict=registration.conflict,
            correlation_id=self._correlation_id,
        )
        where = (
            f"{self._base}/studies/{header.study_instance_uid}/series/{header.series_instance_uid}"
            f"/instances/{header.sop_instance_uid}"
        )
        self.stored.append({**_reference(self._meta), "00081190": {"vr": "UR", "Value": [where]}})

    def _require_own(self, header: Header) -> None:
        """Of an account that is bound to a site: neither the instance, nor what it would change here, is another's."""
        site = self._who.site
        if not site:
            return
        theirs = header.study["institution"] != site
        if not theirs:
            with database().read() as session:
                theirs = studies.is_elsewhere(session, header.study_instance_uid, header.sop_instance_uid, site)
        if theirs:
            raise NotAllowed(
                "The instance, or its study, is of another institution than this account is bound to.",
                cure="Send it by a token of an account of that institution, or of one that is bound to none.",
            )

    def _note_failure(self, error: Exception) -> None:
        if isinstance(error, Unsupported):
            reason = error.reason
        else:
            reason = NOT_AUTHORIZED if isinstance(error, NotAllowed) else int(answer(error))
        told = error.what if isinstance(error, SonomarkError) else type(error).__name__
        log.warning("refused", status=f"0x{reason:04X}", reason=told, correlation_id=self._correlation_id)
        label = Status(reason).label if reason in Status.__members__.values() else "not_supported"
        telemetry.STORED.labels(status=label).inc()
        if self._meta is None:
            self.unnamed.append(_reason(reason))
        else:
            self.failed.append({**_reference(self._meta), **_reason(reason)})


def _no_room() -> SonomarkError | None:
    try:
        if archive().free_bytes() < settings().disk_reserve_mb << 20:
            return OutOfSpace("The archive's disk is above its watermark.")
    except SonomarkError as error:  # the disk does not answer: this part fails, and others have their own answers
        return error
    return None


@router.post("/studies", **STORING)
@router.post("/studies/{study}", **STORING)
async def store(request: Request, study: Uid = "") -> JSONResponse:
    """Store instances, each a part of a multipart/related body of the type application/dicom.

    200 when all of them are durable and queued, 202 when some are, 409 when none is.
    """
    who = caller(request)
    storing = Storing(who, study, base_url(request))
    reader = Reader(boundary_of(request.headers.get("content-type", ""), DICOM), storing)
    try:
        async for chunk in request.stream():
            await run_in_threadpool(reader.feed, chunk)
    except (BadBody, ClientDisconnect):
        # What was complete before is stored, and the same request again finds it so.
        if not storing.stored and not storing.failures:
            raise
    finally:
        await run_in_threadpool(storing.discard)
    if not reader.complete:
        storing.cut_off()
    status, body = storing.response()
    counts = {"stored": len(storing.stored), "failed": len(storing.failures)}
    await run_in_threadpool(note, who, "dicomweb.store", study, counts)
    headers = {"Retry-After": "60"} if status == 503 else None
    return JSONResponse(body, status_code=status, media_type=JSON, headers=headers)


def _reason(reason: int) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [int(reason)]}}


def _reference(meta: FileMeta) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [meta.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [meta.sop_instance_uid]},
    }
