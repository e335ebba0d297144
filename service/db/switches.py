"""What administrators have set while the house runs: work paused, the door draining or open to all, the network in use.

Every process asks for them where it matters, so that none has to be told. Who set them, when and why stands beside
them.
"""

from typing import Any

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from service.db.session import past_mapper
from service.db.tables import Switch, now

PAUSED = "paused"  # workers claim nothing new; what they hold they finish
DRAINING = "draining"  # the door takes no new association; senders try again later
OPEN = "open"  # the door lets everybody in although no peer that was entered may; see peers.Door
NETWORK = "network"  # {"name": …}: the weights in use, in place of the setting NETWORK


def standing(session: Session) -> dict[str, Switch]:
    """Every switch that is set, by its name."""
    return {each.name: each for each in session.scalars(select(Switch))}


def is_on(session: Session, name: str) -> bool:
    """Whether the switch is set."""
    return past_mapper(session).scalar(_NAMED, {"switch": name}) is not None


def turn_on(session: Session, name: str, by: str, reason: str, value: dict[str, Any] | None = None) -> None:
    """Set a switch, or set it anew."""
    session.merge(Switch(name=name, set_by=by, reason=reason, value=value or {}, since=now()))


def turn_off(session: Session, name: str) -> None:
    """Take a switch back."""
    session.execute(delete(Switch).where(Switch.name == name))


def network(session: Session) -> str:
    """The name of the weights that an administrator put in use; empty: those of the settings."""
    value = past_mapper(session).scalar(_VALUE, {"switch": NETWORK})
    return str(value["name"]) if value else ""


_NAMED = select(Switch.name).where(Switch.name == bindparam("switch"))
_VALUE = select(Switch.value).where(Switch.name == bindparam("switch"))
