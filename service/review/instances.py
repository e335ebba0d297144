"""Instances over HTTP: their state, and the pictures of their frames."""

from threading import Lock
from time import monotonic
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from service.db import studies
from service.db.session import database
from service.db.tables import Instance
from service.review import frames, schemas, shaping
from service.review.deps import Account, Reader, note
from service.review.problems import PROBLEM_RESPONSES

router = APIRouter(prefix="/api/instances/{sop_instance_uid}", tags=["instances"], responses=PROBLEM_RESPONSES)

Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="SOP Instance UID")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="Counted from 1, as DICOM does.")]
Version = Annotated[
    str, Query(pattern="^[0-9a-f]*$", max_length=64, description="SHA-256 of one stored version; else the newest.")
]
Webp = Annotated[bool, Query(description="WebP, smaller and not quite exact, rather than PNG.")]
Width = Annotated[int, Query(ge=0, le=4096, description="Scale down to this width; 0: full size.")]
PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}, "image/webp": {}}, "description": "The picture"}
}
OF_BYTES = PICTURE | {410: PROBLEM_RESPONSES[404] | {"description": "The retention policy released the image."}}


@router.get("")
def get_instance(sop_instance_uid: Uid, account: Reader, sha256: Version = "") -> schemas.InstanceDetail:
    """One instance: where it stands in the queue, what was found on it, and its versions."""
    with database().read() as session:
        found = studies.instance(session, sop_instance_uid, account.site, sha256)
        judged = studies.instance_verdicts(session, found.study).get(found.id)
        series = studies.series_uid(session, found)
        shaped = schemas.InstanceDetail(
            **shaping.instance(found, series, judged).model_dump(),
            study_instance_uid=found.study.study_instance_uid,
            versions=[each.sha256 for each in studies.versions(session, sop_instance_uid)],
        )
    note(account, "instance.view", sop_instance_uid)
    return shaped


@router.get("/frames/{number}/image", responses=OF_BYTES, response_class=Response)
def get_image(
    sop_instance_uid: Uid, number: Number, account: Reader, sha256: Version = "", webp: Webp = False, width: Width = 0
) -> Response:
    """The frame as displayed."""
    return _shown(frames.image(_instance(account, sop_instance_uid, sha256), number, webp=webp, width=width))


@router.get("/frames/{number}/mask", responses=PICTURE, response_class=Response)
def get_mask(sop_instance_uid: Uid, number: Number, account: Reader, sha256: Version = "") -> Response:
    """Where marks were found: a palette PNG whose index is the kind (0: none), transparent where there is none."""
    return _shown(frames.mask(_instance(account, sop_instance_uid, sha256), number))


@router.get("/frames/{number}/restoration", responses=OF_BYTES, response_class=Response)
def get_restoration(
    sop_instance_uid: Uid, number: Number, account: Reader, sha256: Version = "", webp: Webp = False
) -> Response:
    """The frame as the network would have it without any mark. Not for diagnosis."""
    return _shown(frames.restoration(_instance(account, sop_instance_uid, sha256), number, webp=webp))


@router.get("/frames/{number}/residual", responses=OF_BYTES, response_class=Response)
def get_residual(sop_instance_uid: Uid, number: Number, account: Reader, sha256: Version = "") -> Response:
    """|frame − restoration| as a grey PNG."""
    return _shown(frames.residual(_instance(account, sop_instance_uid, sha256), number))


def _instance(account: Account, sop_instance_uid: str, sha256: str) -> Instance:
    with database().read() as session:
        found = studies.instance(session, sop_instance_uid, account.site, sha256)
    if _seen.first(account.credential.id, sop_instance_uid):
        note(account, "instance.view", sop_instance_uid)
    return found


class Seen:
    """Which account looked at which instance lately: a cine of hundreds of frames is one view, not hundreds."""

    def __init__(self, within_s: float = 600.0, at_most: int = 10_000) -> None:
        self._within_s, self._at_most = within_s, at_most
        self._seen: dict[tuple[int, str], float] = {}
        self._lock = Lock()

    def first(self, credential_id: int, sop_instance_uid: str) -> bool:
        """Whether this view is to be written down."""
        at, key = monotonic(), (credential_id, sop_instance_uid)
        with self._lock:
            last = self._seen.pop(key, None)
            fresh = last is not None and at - last < self._within_s
            self._seen[key] = last if fresh and last is not None else at
            while len(self._seen) > self._at_most:
                del self._seen[next(iter(self._seen))]
        return not fresh


_seen = Seen()


def _shown(picture: frames.Picture) -> Response:
    return Response(picture.data, media_type=picture.media_type, headers={"Content-Disposition": "inline"})
