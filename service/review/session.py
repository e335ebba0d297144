"""Whether this browser is still signed in: asked by pages that are open for hours."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from service.review.deps import Reader
from service.review.pages import session_times
from service.settings import settings

router = APIRouter(include_in_schema=False)


class Session(BaseModel):
    """What a page needs to go on after signing in again."""

    user: str
    csrf: str
    idle_s: int = Field(description="Seconds without a request after which the session ends.")
    ends_in_s: int = Field(description="Seconds after which it ends in any case.")


@router.get("/session")
def session(account: Reader) -> Session:
    """Who is signed in, and for how long. Asking counts as a sign of life."""
    idle_s, ends_in_s = session_times(account) or (settings().session_idle_s, settings().session_absolute_s)
    return Session(user=account.user.name, csrf=account.csrf, idle_s=idle_s, ends_in_s=ends_in_s)
