"""What an account likes: theme, single-key shortcuts, saved filters. Kept on the server, so it follows the person."""

from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse

from service.db import users
from service.db.session import database
from service.review.auth import local
from service.review.deps import Reader

router = APIRouter(include_in_schema=False)


@router.post("/preferences")
def set_preferences(
    account: Reader,
    theme: Annotated[str | None, Form(pattern="^(auto|dark|light)$")] = None,
    single_keys: Annotated[str | None, Form(pattern="^(on|off)$")] = None,
    next: Annotated[str, Form(max_length=2048)] = "/",
) -> Response:
    """Change what was sent and leave the rest."""
    changes = {name: value for name, value in (("theme", theme), ("single_keys", single_keys)) if value is not None}
    if changes.get("theme") == "auto":
        changes["theme"] = ""
    with database().begin() as session:
        users.prefer(session, account.user.id, changes)
    return RedirectResponse(local(next), status_code=303)
