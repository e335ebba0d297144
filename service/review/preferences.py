"""What an account likes: theme, keys, saved filters, columns. Kept on the server, so it follows the person."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse

from service.db import users
from service.db.session import database
from service.errors import NotAllowed
from service.review.auth import local
from service.review.deps import Reader
from service.review.worklist import COLUMNS, queue_query

router = APIRouter(include_in_schema=False)

MOST_FILTERS = 20


@router.post("/preferences")
def set_preferences(
    account: Reader,
    theme: Annotated[str | None, Form(pattern="^(auto|dark|light)$")] = None,
    operator: Annotated[str | None, Form(max_length=324, description="Whose scans are mine; '-' forgets it.")] = None,
    single_keys: Annotated[str | None, Form(pattern="^(on|off)$")] = None,
    next: Annotated[str, Form(max_length=2048)] = "/",
) -> Response:
    """Change what was sent and leave the rest."""
    given = (("theme", theme), ("operator", operator), ("single_keys", single_keys))
    changes = {name: value for name, value in given if value is not None}
    if changes.get("operator") == "-":
        changes["operator"] = ""
    if changes.get("theme") == "auto":
        changes["theme"] = ""
    with database().begin() as session:
        users.prefer(session, account.user.id, changes)
    return RedirectResponse(local(next), status_code=303)


@router.post("/preferences/columns")
def choose_columns(
    account: Reader,
    shown: Annotated[list[str], Form(max_length=len(COLUMNS))] = [],  # noqa: B006  a form without a tick
    query: Annotated[str, Form(max_length=2048)] = "",
) -> Response:
    """Show these columns of the worklist beside state and patient, and leave the others out."""
    hidden = [name for name in COLUMNS if name not in shown]
    with database().begin() as session:
        users.prefer(session, account.user.id, {"hidden_columns": hidden or None})
    return RedirectResponse(f"/worklist?{queue_query(dict(parse_qsl(query)))}", status_code=303)


@router.post("/preferences/filters")
def keep_filter(
    account: Reader,
    name: Annotated[str, Form(min_length=1, max_length=40)],
    query: Annotated[str, Form(max_length=2048)] = "",
    forget: Annotated[bool, Form()] = False,
) -> Response:
    """Keep the worklist's filter under a name, or forget one."""
    with database().begin() as session:
        user = users.get_user(session, account.user.name)
        kept = {each: what for each, what in user.preferences.get("filters", {}).items() if each != name.strip()}
        if not forget:
            if len(kept) >= MOST_FILTERS:
                raise NotAllowed(f"You keep {MOST_FILTERS} filters already.", cure="Forget one first.")
            kept[name.strip()] = queue_query(dict(parse_qsl(query)))
        users.prefer(session, user.id, {"filters": kept or None})
    return RedirectResponse(f"/worklist?{queue_query(dict(parse_qsl(query)))}", status_code=303)
