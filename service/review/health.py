"""Whether the house is alive and ready, for supervisors and load balancers; and its metrics."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service import telemetry
from service.archive.store import archive
from service.db import census, heartbeats
from service.db.session import database
from service.errors import DatabaseAway, SonomarkError
from service.review.pages import render
from service.settings import settings

router = APIRouter(tags=["health"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "alive"}


@router.get("/readyz")
def readyz() -> JSONResponse:
    """200 when everything that this role depends on answers, each by name; under `sonomark up` every role too."""
    checks: dict[str, str] = {"database": "ok", "archive": _archive()}
    try:
        with database().read() as session:
            alive = heartbeats.alive(session)
            suspended = heartbeats.suspended(session, "receive")
    except SonomarkError as error:
        alive, suspended = {}, ""
        checks["database"] = error.what
    for role in filter(None, (each.strip() for each in settings().role_set.split(","))):
        checks[role] = "ok" if alive.get(role) else "no sign of life within ten seconds"
        if role == "receive" and suspended:
            checks[role] = f"takes nothing in: {suspended}"
    ready = all(answer == "ok" for answer in checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics() -> Response:
    """Prometheus metrics of this process, with the whole house's queue read from the database."""
    try:
        with database().read() as session:
            census.take(session)
    except DatabaseAway:
        telemetry.DATABASE_UP.set(0)  # what this process counted itself is still worth scraping
        return Response(telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)
    telemetry.DATABASE_UP.set(1)
    return Response(telemetry.house_exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> Response:
    """The API in words, made from its own OpenAPI document."""
    return render(request, "docs.html", {"api": request.app.openapi()})


def _archive() -> str:
    try:
        archive().free_bytes()
    except SonomarkError as error:
        return error.what
    return "ok"
