"""QIDO-RS (PS3.18 section 10.6): search for studies, series and instances."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydicom.datadict import keyword_for_tag
from sqlalchemy.orm import Session

from service.db import catalogue, studies
from service.db.session import database
from service.dicomweb import model
from service.dicomweb.access import Uid, asker, base_url, caller, note
from service.dicomweb.store import JSON

router = APIRouter(prefix="/dicomweb", tags=["DICOMweb"])

MOST = 1000
FOREIGN = ("limit", "offset", "includefield", "fuzzymatching", "accept")
Limit = Annotated[int, Query(ge=1)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]


# How `/openapi.json` tells of the answers.
FOUND: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "What matches, as DICOM JSON.",
            "content": {JSON: {"schema": {"type": "array", "items": {"type": "object"}}}},
        },
        204: {"description": "Nothing matches."},
    },
}


@router.get("/studies", **FOUND)
def search_studies(request: Request, limit: Limit = 200, offset: Offset = 0) -> Response:
    """Studies that match, the newest first; 204 when there is none."""
    with database().read() as session:
        found = catalogue.studies(session, _keys(request), asker(request), min(limit, MOST) + 1, offset)
        return _answer(request, [model.study(each, base_url(request)) for each in found], limit)


@router.get("/series", **FOUND)
@router.get("/studies/{study}/series", **FOUND)
def search_series(request: Request, study: Uid = "", limit: Limit = 200, offset: Offset = 0) -> Response:
    """Series that match."""
    keys = _keys(request, StudyInstanceUID=study)
    with database().read() as session:
        _require(session, request, study)
        found = catalogue.series(session, keys, asker(request), min(limit, MOST) + 1, offset)
        return _answer(request, [model.series(each, base_url(request)) for each in found], limit)


@router.get("/instances", **FOUND)
@router.get("/studies/{study}/instances", **FOUND)
@router.get("/studies/{study}/series/{series}/instances", **FOUND)
def search_instances(
    request: Request,
    study: Uid = "",
    series: Uid = "",
    limit: Limit = 200,
    offset: Offset = 0,
) -> Response:
    """Instances that match."""
    keys = _keys(request, StudyInstanceUID=study, SeriesInstanceUID=series)
    with database().read() as session:
        _require(session, request, study)
        found = catalogue.instances(session, keys, asker(request), min(limit, MOST) + 1, offset)
        return _answer(request, [model.instance(each, base_url(request)) for each in found], limit)


def _require(session: Session, request: Request, study: str) -> None:
    """A study that is not there, or not for this account, is told apart from one in which nothing matches."""
    if study:
        studies.brief(session, study, caller(request).site)


def _keys(request: Request, **of_address: str) -> dict[str, str]:
    """Matching keys of the query, by keyword; those of the address cannot be overruled."""
    asked = {_keyword(name): value for name, value in request.query_params.items() if name.lower() not in FOREIGN}
    return asked | {name: value for name, value in of_address.items() if value}


def _keyword(name: str) -> str:
    """Attributes are named by keyword or by eight hexadecimal digits."""
    if len(name) == 8 and all(digit in "0123456789abcdefABCDEF" for digit in name):
        return keyword_for_tag(int(name, 16)) or name
    return name


def _answer(request: Request, found: list[dict[str, Any]], limit: int) -> Response:
    """``found`` holds one more than are told, if there are more (PS3.18 section 8.3.4.4.1)."""
    warnings = []
    if request.query_params.get("fuzzymatching", "").lower() == "true":
        warnings.append("fuzzymatching is not supported, only literal matching was done")
    if len(found) > min(limit, MOST):
        found.pop()
        warnings.append("There are additional results that can be requested")
    headers = {"Warning": ", ".join(f'299 sonomark "{each}"' for each in warnings)} if warnings else {}
    note(caller(request), "dicomweb.search", "", {"results": len(found)})
    if not found:
        return Response(status_code=204, headers=headers)
    return JSONResponse(found, media_type=JSON, headers=headers)
