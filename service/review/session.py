"""Whether this browser is still signed in: asked by pages that are open for hours."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.db import users
from service.db.session import database
from service.db.tables import now
from service.review.deps import Reader
from service.review.pages import session_times
from service.settings import settings

router = APIRouter(include_in_schema=False)


class Session(BaseModel):
    """What a page needs to go on after signing in again."""

    user: str
    csrf: str
    idle_s: int = Field(description="Seconds after which the session ends unless a person asks for something.")
    ends_in_s: int = Field(description="Seconds after which it ends in any case.")


@router.get("/session")
def session(account: Reader, stay: bool = False) -> Session:
    """Who is signed in, and for how long. Asking is a sign of life with ``stay`` alone: a page asks by itself, too."""
    idle_s, ends_in_s = session_times(account) or (settings().session_idle_s, settings().session_absolute_s)
    if stay:
        with database().begin() as changing:
            users.touch(changing, account.credential.id)
    elif account.csrf:
        idle_s = max(0, idle_s - int((now() - account.credential.last_seen_at).total_seconds()))
    return Session(user=account.user.name, csrf=account.csrf, idle_s=idle_s, ends_in_s=ends_in_s)
