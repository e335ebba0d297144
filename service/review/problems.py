"""Errors as answers: RFC 9457 problem documents for programs, a page or a fragment for people."""

import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException

from service import logs
from service.db.catalogue import UnknownKey
from service.db.corrections import OutsideOfTheFrame
from service.db.reviews import UnknownReason
from service.dicomweb.parts import BadBody, WrongMediaType
from service.dicomweb.retrieve import NotAcceptable, Released
from service.errors import (
    Conflict,
    DatabaseAway,
    NetworkError,
    NotAllowed,
    NotFound,
    PeerError,
    PolicyError,
    RulebookError,
    SonomarkError,
    StorageError,
    Undecodable,
)
from service.report.compliance import UnknownGrouping
from service.review.pages import render

log = logs.get(__name__)

JSON_PATHS = ("/api", "/dicomweb", "/healthz", "/readyz", "/metrics", "/openapi.json")


class SignInNeeded(NotAllowed):
    """Nobody is signed in."""


class SecondFactorNeeded(NotAllowed):
    """The account's role needs a second factor, which it has not set up yet."""


class TooMany(NotAllowed):
    """Too many attempts from one place."""


class TooLarge(NotAllowed):
    """The request's body is larger than anything this service takes."""


STATUSES: tuple[tuple[type[SonomarkError], int], ...] = (
    (SignInNeeded, 401),
    (TooMany, 429),
    (TooLarge, 413),
    (UnknownReason, 422),
    (OutsideOfTheFrame, 422),
    (WrongMediaType, 415),
    (BadBody, 400),
    (UnknownKey, 400),
    (NotAcceptable, 406),
    (RulebookError, 422),
    (PolicyError, 422),
    (UnknownGrouping, 422),
    (Undecodable, 422),
    (NotAllowed, 403),
    (Released, 410),
    (NotFound, 404),
    (Conflict, 409),
    (DatabaseAway, 503),
    (NetworkError, 503),
    (PeerError, 502),
    (StorageError, 503),
    (SonomarkError, 500),
)


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    cure: str = ""
    instance: str = ""
    errors: list[dict[str, Any]] = []


PROBLEM_JSON = "application/problem+json"
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": {PROBLEM_JSON: {}}}
    for status in (401, 403, 404, 409, 422, 503)
}


def install(app: FastAPI) -> None:
    """Let every error leave this application as a problem or a page."""
    app.add_exception_handler(SonomarkError, _handler(_of_ours))
    app.add_exception_handler(RequestValidationError, _handler(_of_validation))
    app.add_exception_handler(DataError, _handler(_of_data))
    app.add_exception_handler(HTTPException, _handler(_of_http))
    app.openapi = lambda describe=app.openapi: _as_problems(describe())  # type: ignore[method-assign,misc]


def _as_problems(description: dict[str, Any]) -> dict[str, Any]:
    """FastAPI lists every model as application/json as well; a problem is sent as problem+json alone."""
    for path in description["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                if PROBLEM_JSON in content and "application/json" in content:
                    response["content"] = {PROBLEM_JSON: content["application/json"]}
    return description


def answer(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem in the form the client reads."""
    if request.url.path.startswith(JSON_PATHS):
        return JSONResponse(
            problem.model_dump(exclude_defaults=True) | {"type": problem.type},
            status_code=problem.status,
            media_type=PROBLEM_JSON,
            headers=headers,
        )
    fragment = request.headers.get("hx-request") == "true"
    template = "problem_fragment.html" if fragment else "problem.html"
    # Its own address may hold an accession number or a name that was searched: a refusal does not repeat it.
    return render(request, template, {"problem": problem, "here": "/"}, status=problem.status, headers=headers)


def status_of(error: SonomarkError) -> int:
    """The HTTP status that says what this error says."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def _handler(make: Callable[[Request, Any], Response]) -> Callable[[Request, Exception], Response]:
    def handle(request: Request, error: Exception) -> Response:
        return make(request, error)

    return handle


def _of_ours(request: Request, error: SonomarkError) -> Response:
    status = status_of(error)
    asks_for_page = request.method == "GET" and request.headers.get("hx-request") != "true"
    if isinstance(error, SignInNeeded) and asks_for_page and not request.url.path.startswith(JSON_PATHS):
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(request.url_for("sign_in").include_query_params(next=target), status_code=303)
    if isinstance(error, SecondFactorNeeded) and asks_for_page and not request.url.path.startswith(JSON_PATHS):
        return RedirectResponse("/profile/second-factor", status_code=303)
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = "60" if status == 429 else "5"
    if status >= 500:
        log.warning("a request failed", status=status, path=_route(request), error=type(error).__name__)
    title = HTTPStatus(status).phrase
    return answer(request, Problem(title=title, status=status, detail=error.what, cure=error.cure), headers)


def _of_validation(request: Request, error: RequestValidationError) -> Response:
    # Without the input: what was sent may hold patient data.
    errors = [{"loc": [str(part) for part in each["loc"]], "msg": each["msg"]} for each in error.errors()]
    wrong = {each["loc"][-1]: each["msg"] for each in reversed(errors)}
    told = "; ".join(f"{name}: {said[:1].lower()}{said[1:]}" for name, said in sorted(wrong.items()))
    problem = Problem(
        title="Unprocessable Content",
        status=422,
        detail=f"Nothing was done, for the request is not right. {told[:1].upper()}{told[1:]}.",
        cure="Correct what is named and send it again; the page API (/docs) says what each address takes.",
        errors=errors,
    )
    return answer(request, problem)


def _of_data(request: Request, error: DataError) -> Response:
    """PostgreSQL takes no NUL in a text, and no number beyond its column; its message quotes what was sent."""
    log.warning("a request held what the database does not take", path=_route(request), error=type(error.orig).__name__)
    problem = Problem(
        title="Unprocessable Content",
        status=422,
        detail="Nothing was done, for a text has a character, or a number a size, that the database does not take.",
        cure="Correct it and send it again.",
    )
    return answer(request, problem)


def _of_http(request: Request, error: HTTPException) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    detail = "" if error.detail == phrase else str(error.detail)
    cure = ""
    if error.status_code == 404 and not detail:
        detail, cure = "There is nothing at this address.", "Check how it is written, or begin at the worklist."
    elif error.status_code == 405 and not detail:
        detail = f"This address takes no {request.method}."
        cure = "The page API (/docs) says what each address takes."
    problem = Problem(title=phrase, status=error.status_code, detail=detail, cure=cure)
    return answer(request, problem, dict(error.headers) if error.headers else None)


def accident(request: Request, error: Exception) -> Response:
    """The answer to an error that nobody foresaw: an incident number, and its place in the log."""
    incident = secrets.token_hex(4)
    # The traceback's text may quote what was asked for, so only the place and the kind are logged.
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else ""
    kind = type(error).__name__
    log.error("a request met an accident", incident=incident, path=_route(request), error=kind, at=place)
    problem = Problem(
        title="Internal Server Error",
        status=500,
        detail="Something went wrong in Sonomark itself. Nothing of yours was changed.",
        cure=f"Try again; if it stays, tell your administrator the incident {incident}.",
    )
    return answer(request, problem)


def _route(request: Request) -> str:
    """The route's template: the path itself holds UIDs or accession numbers."""
    route = request.scope.get("route")
    return getattr(route, "path", "")
