"""Rendering: the templates with what every page needs."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.db import switches
from service.db.days import day_of
from service.db.session import database
from service.db.tables import Switch, now
from service.errors import DatabaseAway
from service.review import words
from service.review.kept import Kept
from service.settings import settings

HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"


@lru_cache
def environment() -> Environment:
    """The templates. Everything is escaped; a name that is not given is an error."""
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        person=words.person,
        kind=words.kind,
        requirement=words.requirement,
        second_read=words.second_read,
        weighty=words.weighty,
        changed=words.changed,
        age=words.age,
        lasting=words.lasting,
        clock=words.clock,
        day=day_of,
        iso=words.iso,
        exam=words.exam,
        plural=words.plural,
        octets=words.octets,
        options=words.options_of,
    )
    env.globals.update(
        asset=asset,
        state_of=words.state_of,
        SWITCHES=words.SWITCHES,
        VERDICTS=words.VERDICTS,
        COUNTED=words.COUNTED,
        DECISIONS=words.DECISIONS,
        FINDINGS=words.FINDINGS,
        KINDS=words.KINDS,
        PROBLEMS=words.PROBLEMS,
        years=words.years,
    )
    return env


def compile_all() -> None:
    """Compile every template now, so that the first reader of a page does not wait for it."""
    for name in environment().list_templates(["html"]):
        environment().get_template(name)


@lru_cache
def asset(name: str) -> str:
    """The address of a static file; it carries the file's digest, so that browsers may keep it for a year."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]
    return f"/static/{name}?v={digest}"


def render(
    request: Request,
    template: str,
    context: dict[str, Any] | None = None,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    """A page (or a fragment) with the reader's account, token and theme at hand."""
    account = getattr(request.state, "account", None)
    told = {
        "account": account,
        "csrf": account.csrf if account is not None else "",
        "preferences": account.user.preferences if account is not None else {},
        "path": request.url.path,
        "query": request.url.query,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "session": session_times(account),
        "banners": banners(request) if account is not None and not _is_told(request) else [],
    }
    html = environment().get_template(template).render(told | (context or {}))
    return HTMLResponse(html, status_code=status, headers=headers)


def session_times(account: Any) -> tuple[int, int] | None:
    """Seconds after which a browser session ends: without a request, and in any case. None for a bearer token."""
    if account is None or not account.csrf or account.credential.expires_at is None:
        return None
    return settings().session_idle_s, max(0, int((account.credential.expires_at - now()).total_seconds()))


def _is_told(request: Request) -> bool:
    """A fragment's page has the banners already, and the flow page keeps them up to date itself."""
    fragment = request.headers.get("hx-request") == "true"
    return fragment or request.url.path.startswith(("/flow", "/api"))


def banners(request: Request) -> list[tuple[str, str]]:
    """What nobody must overlook who waits for a verdict, as title and sentence: work is paused, the door drains."""
    kept: Kept[list[Switch]] = request.app.state.banners
    try:
        standing = kept.get("", _standing)
    except DatabaseAway:
        return []
    return [
        (words.SWITCHES[each.name], f"since {words.clock(each.since)} by {each.set_by}: {each.reason}")
        for each in standing
    ]


def _standing() -> list[Switch]:
    with database().read() as session:
        standing = switches.standing(session)
    return [standing[name] for name in (switches.PAUSED, switches.DRAINING) if name in standing]
