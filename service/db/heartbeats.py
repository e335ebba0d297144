"""Signs of life of the running roles."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from threading import Event, Thread
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service import logs
from service.db.session import Database
from service.db.tables import Heartbeat, now
from service.errors import DatabaseAway

log = logs.get(__name__)

INTERVAL_S = 2.0
FRESH = timedelta(seconds=10)
FORGOTTEN = timedelta(days=1)


def beat(session: Session, role: str, detail: dict[str, Any] | None = None) -> None:
    """Say that this process runs ``role`` and is alive."""
    process = f"{socket.gethostname()}:{os.getpid()}"[:96]
    session.merge(Heartbeat(role=role, process=process, at=now(), detail=detail or {}))
    session.execute(delete(Heartbeat).where(Heartbeat.at < now() - FORGOTTEN))


def alive(session: Session) -> dict[str, int]:
    """How many processes of each role were alive within the last ten seconds."""
    roles = session.scalars(select(Heartbeat.role).where(Heartbeat.at > now() - FRESH)).all()
    return {role: roles.count(role) for role in set(roles)}


def details(session: Session, role: str) -> list[Heartbeat]:
    """The beats of the processes of ``role`` that are alive, each with what it says of itself."""
    fresh = select(Heartbeat).where(Heartbeat.role == role, Heartbeat.at > now() - FRESH)
    return list(session.scalars(fresh.order_by(Heartbeat.process)))


def alive_here(session: Session, role: str) -> int:
    """How many processes of ``role`` on this machine (this container) were alive within the last ten seconds."""
    mine = Heartbeat.process.startswith(f"{socket.gethostname()}:"[:96], autoescape=True)
    fresh = select(func.count()).where(Heartbeat.role == role, mine, Heartbeat.at > now() - FRESH)
    return session.scalar(fresh) or 0


def suspended(session: Session, role: str) -> str:
    """Why a living process of ``role`` takes nothing in; empty when none is suspended."""
    return next((why for each in details(session, role) if (why := each.detail.get("suspended"))), "")


def keep_beating(database: Database, role: str, detail: Callable[[], dict[str, Any]] = dict) -> Event:
    """Beat from a daemon thread until the returned event is set; a database that is away is tried again."""
    stop = Event()

    def run() -> None:
        while not stop.is_set():
            try:
                with database.begin_lightly() as session:
                    beat(session, role, detail())
            except DatabaseAway:
                pass  # readiness falls by itself once the beat is stale
            except Exception as error:  # noqa: BLE001 - nothing may end this thread: the role would seem dead for ever
                log.error("no sign of life", role=role, error=type(error).__name__)
            stop.wait(INTERVAL_S)

    Thread(target=run, name=f"heartbeat-{role}", daemon=True).start()
    return stop
