"""What each calling AE title did last."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import PeerActivity, now


@dataclass(slots=True)
class Tally:
    """What one peer did since it was last written down."""

    stored: int = 0
    refused: int = 0
    last_refusal: str = ""


def note(session: Session, ae_title: str, address: str, tally: Tally) -> None:
    """Add a tally to the peer's row."""
    row = session.get(PeerActivity, (ae_title, address), with_for_update=True)
    if row is None:
        row = PeerActivity(ae_title=ae_title, address=address, stored=0, refused=0)
        session.add(row)
    row.last_seen_at = now()
    row.stored += tally.stored
    row.refused += tally.refused
    if tally.last_refusal:
        row.last_refusal = tally.last_refusal


def peers(session: Session) -> list[PeerActivity]:
    """Every peer ever seen, the one that was quiet longest first."""
    return list(session.scalars(select(PeerActivity).order_by(PeerActivity.last_seen_at)))
