"""Who asks, as far as this room wants to know. Who *may* ask is decided by the dashboard that mounts it."""

from typing import Annotated, Any, Protocol, cast

from fastapi import Request
from pydantic import StringConstraints

from service.db import audit
from service.db.catalogue import Asker
from service.db.session import database

# Of a resource's address, which names one: wild cards and lists are a search's alone.
Uid = Annotated[str, StringConstraints(pattern=r"^[0-9.]{1,64}$")]


class _Named(Protocol):
    name: str


class Caller(Protocol):
    """The account behind a request."""

    @property
    def user(self) -> _Named: ...
    @property
    def site(self) -> str:
        """The institution whose studies it may see; empty: all."""

    @property
    def second_reader(self) -> int | None:
        """The user, if studies may await their blinded answer."""

    @property
    def address(self) -> str: ...


def caller(request: Request) -> Caller:
    """The account that the dashboard's check has let through."""
    return cast(Caller, request.state.account)


def asker(request: Request) -> Asker:
    """What of the catalogue is for the caller."""
    who = caller(request)
    return Asker(who.site, who.second_reader)


def note(who: Caller, action: str, subject: str = "", detail: dict[str, Any] | None = None) -> None:
    """Audit in a transaction of its own."""
    with database().begin() as session:
        audit.record(session, who.user.name, action, subject, who.address, detail)


def base_url(request: Request) -> str:
    """Where this room answers, as the client reached it."""
    return str(request.base_url).rstrip("/") + "/dicomweb"
