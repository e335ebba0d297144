"""Rule books: versions, an editor that names the line of every problem, what-if, and activation."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from service.compliance.check import lint_text
from service.compliance.explain import rulebook_in_words
from service.compliance.rulebook import parse
from service.db import audit, reevaluations, rulebooks
from service.db.session import database
from service.db.tables import Reevaluation, RulebookVersion, now
from service.errors import Conflict, NotAllowed, RulebookError
from service.jobs import reevaluate
from service.review.deps import Account, Admin, Reader
from service.review.differing import differences, three_columns
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES
from service.review.reevaluations import named_to
from service.review.schemas import Id, Moment

router = APIRouter()

LENGTH = 200_000
WHAT_IF_STUDIES = 2000


class Version(BaseModel):
    """One version of a rule book."""

    id: int
    name: str
    version: str
    sha256: str
    created_by: str
    created_at: Moment
    activated_at: Moment | None
    retired_at: Moment | None


class Text(Version):
    toml: str
    in_words: list[str]


class Draft(BaseModel):
    toml: str = Field(max_length=LENGTH)
    based_on: str | None = Field(None, max_length=64, description="SHA-256 of the version this was edited from.")


class Issue(BaseModel):
    line: int
    field: str
    message: str
    cure: str
    is_error: bool


class WhatIf(BaseModel):
    """What a version would have said of the last studies; nothing is written."""

    id: int
    total: int
    done: int
    finished: bool
    changes: dict[str, Any] = Field(description='{"compliant>non_compliant": {"count": n, "studies": [uid, …]}}')

    def newly(self, verdict: str) -> int:
        """Studies that would become this."""
        return sum(found["count"] for change, found in self.changes.items() if change.endswith(f">{verdict}"))

    def no_longer(self, verdict: str) -> int:
        """Studies that would be this no more."""
        return sum(found["count"] for change, found in self.changes.items() if change.startswith(f"{verdict}>"))


@router.get("/api/rulebooks", tags=["rule books"], responses=PROBLEM_RESPONSES)
def list_rulebooks(account: Reader) -> list[Version]:
    """Every kept version, newest first; the one in force is activated and not retired."""
    with database().read() as session:
        return [_version(each) for each in rulebooks.versions(session)]


@router.get("/api/rulebooks/{number}", tags=["rule books"], responses=PROBLEM_RESPONSES)
def get_rulebook(number: Id, account: Reader) -> Text:
    """One version with its text, and the same in words."""
    with database().read() as session:
        found = rulebooks.get(session, number)
    return Text(**_version(found).model_dump(), toml=found.toml, in_words=rulebook_in_words(rulebooks.parsed(found)))


@router.put("/api/rulebooks", tags=["rule books"], responses=PROBLEM_RESPONSES)
def put_rulebook(account: Admin, draft: Draft) -> Version:
    """Keep a draft. A text that is no rule book answers 422, one that somebody else overtook 409."""
    return _version(_save(account, draft.toml, draft.based_on))


@router.post("/api/rulebooks/check", tags=["rule books"], responses=PROBLEM_RESPONSES)
def check_rulebook(account: Reader, draft: Draft) -> list[Issue]:
    """What is wrong with a text, each with its line and a cure."""
    return [
        Issue(line=each.line, field=each.field, message=each.message, cure=each.cure, is_error=each.is_error)
        for each in lint_text(draft.toml)
    ]


@router.post("/api/rulebooks/{number}/what-if", tags=["rule books"], responses=PROBLEM_RESPONSES, status_code=202)
def what_if(number: Id, account: Admin, last: Annotated[int, Query(ge=1, le=100_000)] = WHAT_IF_STUDIES) -> WhatIf:
    """Judge the last studies by this version in the background, without writing a verdict."""
    return _what_if(_ask(account, number, last), account)


@router.get("/api/what-if/{number}", tags=["rule books"], responses=PROBLEM_RESPONSES)
def get_what_if(number: Id, account: Reader) -> WhatIf:
    """How far a what-if has come, and what it found."""
    with database().read() as session:
        return _what_if(reevaluations.get(session, number), account)


@router.get("/rulebooks", include_in_schema=False)
def rulebooks_page(request: Request, account: Reader, version: Id | None = None, ask: Id | None = None) -> Response:
    """The version in force, or the chosen one, with its history."""
    return _page(request, version=version, ask=ask)


@router.post("/rulebooks", include_in_schema=False)
def save_on_page(
    request: Request,
    account: Admin,
    toml: Annotated[str, Form(max_length=LENGTH)],
    based_on: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Check and keep the text. One that somebody else overtook is shown beside theirs, and nothing of it is lost."""
    toml = toml.replace("\r\n", "\n")
    try:
        kept = _save(account, toml, based_on or None)
    except RulebookError as error:
        return _page(request, toml=toml, problem=str(error), status=422)
    except Conflict as error:
        return _overtaken(request, toml, based_on, str(error))
    return RedirectResponse(f"/rulebooks?version={kept.id}", status_code=303)


@router.get("/rulebooks/{number}/compare", include_in_schema=False)
def compare(request: Request, number: Id, account: Reader, other: Annotated[Id, Query(alias="with")]) -> Response:
    """What one version says differently from another, line by line."""
    with database().read() as session:
        after, before = rulebooks.get(session, number), rulebooks.get(session, other)
    context = {"before": before, "after": after, "diff": differences(before.toml, after.toml)}
    return render(request, "rulebook_compare.html", context)


@router.post("/rulebooks/{number}/what-if", include_in_schema=False)
def what_if_on_page(number: Id, account: Admin, activating: Annotated[bool, Form()] = False) -> Response:
    """Ask what this version would have flagged among the last studies."""
    asked = _ask(account, number, WHAT_IF_STUDIES)
    where = f"/rulebooks/{number}/activate?" if activating else f"/rulebooks?version={number}&"
    return RedirectResponse(f"{where}ask={asked.id}", status_code=303)


@router.get("/what-if/{number}", include_in_schema=False)
def what_if_fragment(request: Request, number: Id, account: Reader) -> Response:
    """How far a what-if has come: asked for every second by the page that waits for it."""
    with database().read() as session:
        asked = reevaluations.get(session, number)
    return render(request, "what_if.html", {"asked": _what_if(asked, account)})


@router.post("/what-if/{number}/cancel", include_in_schema=False)
def cancel_what_if(request: Request, number: Id, account: Admin) -> Response:
    """Stop counting; what was found so far stays."""
    with database().begin() as session:
        if reevaluations.get(session, number).records:
            raise NotAllowed("This is no what-if: verdicts are being written.")
        asked = reevaluations.cancel(session, number)
    return render(request, "what_if.html", {"asked": _what_if(asked, account)})


@router.get("/rulebooks/{number}/activate", include_in_schema=False)
def activation_page(request: Request, number: Id, account: Admin, ask: Id | None = None) -> Response:
    """Everything that a person should have seen before a version is put in force."""
    with database().read() as session:
        found, in_force = rulebooks.get(session, number), rulebooks.in_force(session)
        asked = reevaluations.get(session, ask) if ask is not None else None
    context = {
        "found": found,
        "in_force": in_force,
        "diff": differences(in_force.toml, found.toml),
        "asked": _what_if(asked, account) if asked is not None else None,
    }
    return render(request, "rulebook_activate.html", context)


@router.post("/rulebooks/{number}/activate", include_in_schema=False)
def activate(
    number: Id,
    account: Admin,
    typed: Annotated[str, Form(max_length=32)] = "",
    reason: Annotated[str, Form(max_length=255)] = "",
) -> Response:
    """Put a version in force; its number is typed, so that nobody does it by accident."""
    with database().begin() as session:
        found = rulebooks.get(session, number)
        if typed.strip() != found.version:
            raise RulebookError(f"To put version {found.version} in force, type {found.version}.")
        if not reason.strip():
            raise RulebookError("Say why; the audit trail keeps it.")
        rulebooks.activate(session, number, account.user.name)
        detail = {"name": found.name, "version": found.version, "reason": reason.strip()}
        audit.record(session, account.user.name, "rulebook.activate", found.sha256, account.address, detail)
    return RedirectResponse(f"/rulebooks?version={number}", status_code=303)


def _overtaken(request: Request, toml: str, based_on: str, problem: str) -> Response:
    """The text beside the version that stands where it wanted to go, and the one that both began from."""
    with database().read() as session:
        theirs = rulebooks.newest_of(session, parse(toml, "draft").name)
        base = rulebooks.of_digest(session, based_on) if based_on else None
    return _page(request, toml=toml, problem=problem, theirs=theirs, base=base, status=409)


def _save(account: Account, toml: str, based_on: str | None) -> RulebookVersion:
    with database().begin() as session:
        kept = rulebooks.save(session, toml, account.user.name, based_on=based_on)
        audit.record(session, account.user.name, "rulebook.save", kept.sha256, account.address, {"name": kept.name})
        return kept


def _ask(account: Account, number: int, last: int) -> Reevaluation:
    with database().begin() as session:
        rulebooks.get(session, number)
        which = reevaluations.Range(last=last)
        asked = reevaluate.ask(session, number, which, account.user.name, records=False)
        audit.record(session, account.user.name, "rulebook.what_if", str(number), account.address)
    reevaluate.ring(asked.id)
    return asked


def _page(
    request: Request,
    *,
    version: int | None = None,
    ask: int | None = None,
    toml: str | None = None,
    problem: str = "",
    theirs: RulebookVersion | None = None,
    base: RulebookVersion | None = None,
    status: int = 200,
) -> Response:
    with database().read() as session:
        versions = rulebooks.versions(session)
        in_force = rulebooks.in_force(session)
        shown = rulebooks.get(session, version) if version is not None else None
        asked = reevaluations.get(session, ask) if ask is not None else None
    text = toml if toml is not None else shown.toml if shown is not None else in_force.toml
    context = {
        "versions": versions,
        "shown": shown,
        "in_force": in_force,
        "toml": text,
        "issues": lint_text(text),
        "words": [] if problem else rulebook_in_words(rulebooks.parsed(shown) if shown is not None else in_force),
        "asked": _what_if(asked, request.state.account) if asked is not None else None,
        "problem": problem,
        "theirs": theirs,
        "base": base,
        "columns": three_columns(base.toml, theirs.toml, text) if base is not None and theirs is not None else [],
        "diff": differences(theirs.toml, text) if theirs is not None else [],
        "at": now(),
    }
    return render(request, "rulebooks.html", context, status=status)


def _version(found: RulebookVersion) -> Version:
    return Version.model_validate(found, from_attributes=True)


def _what_if(found: Reevaluation, account: Account) -> WhatIf:
    """Counts speak of the whole house; which studies are behind them is not for everybody."""
    return WhatIf(
        id=found.id,
        total=found.total,
        done=found.done,
        finished=found.finished_at is not None or found.cancelled_at is not None,
        changes=named_to(account, found.changes),
    )
