"""Rule books: versions, an editor that names the line of every problem, and activation."""

from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from service.compliance.check import errors_among, lint_text
from service.compliance.explain import rulebook_in_words
from service.compliance.rulebook import Rulebook, load, parse, shipped
from service.db import audit, reevaluations, rulebooks
from service.db.session import database
from service.db.tables import RulebookVersion, now
from service.errors import Conflict, NotFound, RulebookError
from service.review.deps import Account, Admin, Reader
from service.review.differing import differences, three_columns
from service.review.pages import render
from service.review.problems import PROBLEM_RESPONSES
from service.review.schemas import Id, Moment
from service.review.what_ifs import told

router = APIRouter()

LENGTH = 200_000


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


class Activation(BaseModel):
    version: str = Field(max_length=32, description="The version's own number, so that nobody activates by accident.")
    reason: str = Field(min_length=1, max_length=255, description="Kept in the audit trail.")


class Issue(BaseModel):
    line: int
    field: str
    message: str
    cure: str
    is_error: bool


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


@router.post("/api/rulebooks/{number}/activate", tags=["rule books"], responses=PROBLEM_RESPONSES)
def activate_rulebook(number: Id, account: Admin, given: Activation) -> Version:
    """Put a version in force; it judges every study from now on. One that contradicts itself answers 422."""
    return _version(_activate(account, number, given.version, given.reason))


@router.get("/rulebooks", include_in_schema=False)
def rulebooks_page(
    request: Request,
    account: Reader,
    version: Id | None = None,
    ask: Id | None = None,
    begin: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The version in force, or the chosen one, with its history; or a shipped rule book to ``begin`` with."""
    if not begin:
        return _page(request, version=version, ask=ask)
    if begin not in [each.name for each in _shipped()]:
        raise NotFound(f"No rule book {begin} is shipped.", cure=f"Begin with one of {', '.join(shipped())}.")
    return _page(request, toml=next(each.toml for each in _shipped() if each.name == begin), begins=True)


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
    except RulebookError:
        return _page(request, toml=toml, based_on=based_on, problem=_in_lines(toml), status=422)
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


@router.get("/rulebooks/{number}/activate", include_in_schema=False)
def activation_page(request: Request, number: Id, account: Admin, ask: Id | None = None) -> Response:
    """Everything that a person should have seen before a version is put in force."""
    return _activation(request, number, account, ask)


@router.post("/rulebooks/{number}/activate", include_in_schema=False)
def activate(
    request: Request,
    number: Id,
    account: Admin,
    typed: Annotated[str, Form(max_length=32)] = "",
    reason: Annotated[str, Form(max_length=255)] = "",
    ask: Annotated[Id | None, Form()] = None,
) -> Response:
    """Put a version in force; its number is typed, so that nobody does it by accident."""
    try:
        _activate(account, number, typed, reason)
    except RulebookError as error:
        return _activation(request, number, account, ask, problem=str(error), reason=reason, status=422)
    return RedirectResponse(f"/rulebooks?version={number}", status_code=303)


def _activation(
    request: Request,
    number: int,
    account: Account,
    ask: int | None,
    *,
    problem: str = "",
    reason: str = "",
    status: int = 200,
) -> Response:
    with database().read() as session:
        found, in_force = rulebooks.get(session, number), rulebooks.in_force(session)
        # Where none is named, the last one: what it said need not be asked for again.
        asked = reevaluations.get(session, ask) if ask is not None else reevaluations.last_what_if(session, number)
    context = {
        "found": found,
        "in_force": in_force,
        "diff": differences(in_force.toml, found.toml),
        "wrong": errors_among(lint_text(found.toml)),
        "asked": told(asked, account) if asked is not None else None,
        "problem": problem,
        "reason": reason,
    }
    return render(request, "rulebook_activate.html", context, status=status)


def _activate(account: Account, number: int, typed: str, reason: str) -> RulebookVersion:
    with database().begin() as session:
        found = rulebooks.get(session, number)
        if typed.strip() != found.version:
            raise RulebookError("What was typed is not this version.", cure=f"Type {found.version} to put it in force.")
        if not reason.strip():
            raise RulebookError("No reason was given.", cure="Say why; the audit trail keeps it.")
        rulebooks.activate(session, number, account.user.name)
        detail = {"name": found.name, "version": found.version, "reason": reason.strip()}
        audit.record(session, account.user.name, "rulebook.activate", found.sha256, account.address, detail)
        return found


def _overtaken(request: Request, toml: str, based_on: str, problem: str) -> Response:
    """The text beside the version that stands where it wanted to go, and the one that both began from."""
    with database().read() as session:
        theirs = rulebooks.newest_of(session, parse(toml, "draft").name)
        base = rulebooks.of_digest(session, based_on) if based_on else None
    return _page(request, toml=toml, problem=problem, theirs=theirs, base=base, status=409)


def _in_lines(toml: str) -> str:
    """What keeps a text from being saved, for whoever has it in the editor."""
    wrong = errors_among(lint_text(toml))
    told = " ".join(f"Line {each.line}: {each.message} {each.cure}".rstrip() for each in wrong[:3])
    more = f" And {len(wrong) - 3} more." if len(wrong) > 3 else ""
    return f"The text is no rule book yet. {told}{more} Correct it and save it again; all of it stands below."


def _save(account: Account, toml: str, based_on: str | None) -> RulebookVersion:
    with database().begin() as session:
        kept = rulebooks.save(session, toml, account.user.name, based_on=based_on)
        audit.record(session, account.user.name, "rulebook.save", kept.sha256, account.address, {"name": kept.name})
        return kept


def _page(
    request: Request,
    *,
    version: int | None = None,
    ask: int | None = None,
    toml: str | None = None,
    based_on: str = "",
    problem: str = "",
    begins: bool = False,
    theirs: RulebookVersion | None = None,
    base: RulebookVersion | None = None,
    status: int = 200,
) -> Response:
    with database().read() as session:
        versions = rulebooks.versions(session)
        in_force = rulebooks.in_force(session)
        shown = rulebooks.get(session, version) if version is not None else None
        if shown is None and not problem and not begins:
            shown = rulebooks.of_digest(session, in_force.sha256)
        asked = reevaluations.get(session, ask) if ask is not None else None
    text = toml if toml is not None else shown.toml if shown is not None else in_force.toml
    book = rulebooks.parsed(shown) if shown is not None else parse(text) if begins else in_force
    origin = theirs or shown or in_force
    # Where nobody else went on from what this text began from, there are only two to compare.
    both = base is not None and theirs is not None and base.sha256 != theirs.sha256
    columns = three_columns(base.toml, theirs.toml, text) if both and base and theirs else []
    context = {
        "versions": versions,
        "shown": shown,
        "in_force": in_force,
        "toml": text,
        "issues": lint_text(text),
        "words": [] if problem else rulebook_in_words(book),
        "book": book,
        "begins": begins,
        "shipped": _shipped(),
        "based_on": based_on or origin.sha256,
        "asked": told(asked, request.state.account) if asked is not None else None,
        "problem": problem,
        "theirs": theirs,
        "base": base,
        "columns": columns,
        "diff": differences(theirs.toml, text) if theirs is not None else [],
        "at": now(),
    }
    return render(request, "rulebooks.html", context, status=status)


@lru_cache
def _shipped() -> list[Rulebook]:
    """The rule books that come with Sonomark; their files do not change under a running dashboard."""
    return [load(name) for name in shipped()]


def _version(found: RulebookVersion) -> Version:
    return Version.model_validate(found, from_attributes=True)
