"""Requests for storage commitment: taken on in one transaction, reported until the peer has heard."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from service.db.tables import Commitment, CommitmentState, now

MOST_PUT_OFF = timedelta(hours=2)


def add(session: Session, transaction_uid: str, ae_title: str, address: str, requested: Sequence[Sequence[str]]) -> int:
    """Take a request on; the same transaction asked for again is reported again."""
    known = session.scalar(
        select(Commitment).where(Commitment.ae_title == ae_title, Commitment.transaction_uid == transaction_uid)
    )
    commitment = known or Commitment(ae_title=ae_title, transaction_uid=transaction_uid)
    commitment.address = address
    commitment.requested = [list(each) for each in requested]
    commitment.state, commitment.attempts, commitment.due_at = CommitmentState.WAITING, 0, now()
    session.add(commitment)
    session.flush()
    return commitment.id


def waiting(session: Session, ae_title: str) -> int:
    """How many reports this peer has not heard yet."""
    count = select(func.count()).select_from(Commitment)
    found = session.scalar(count.where(Commitment.ae_title == ae_title, Commitment.state == CommitmentState.WAITING))
    return found or 0


def claim(session: Session, limit: int, for_s: float) -> list[Commitment]:
    """Those that are due; for ``for_s`` seconds no other process takes them."""
    at = now()
    # None is ever put off for so long: what seems to be was written by a clock that was ahead then.
    its_turn = or_(Commitment.due_at <= at, Commitment.due_at > at + MOST_PUT_OFF)
    due = (
        select(Commitment.id)
        .where(Commitment.state == CommitmentState.WAITING, its_turn)
        .order_by(Commitment.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(
        session.scalars(
            update(Commitment)
            .where(Commitment.id.in_(due))
            .values(due_at=at + timedelta(seconds=for_s), attempts=Commitment.attempts + 1)
            .returning(Commitment)
            .execution_options(synchronize_session=False)
        )
    )


def reported(session: Session, commitment_id: int, attempts: int, committed: int, failed: int) -> None:
    """The peer has answered the report of this attempt. Asked again meanwhile, it is owed another one."""
    _change(
        session,
        commitment_id,
        attempts,
        state=CommitmentState.REPORTED,
        reported_at=now(),
        committed=committed,
        failed=failed,
        last_failure="",
    )


def put_off(session: Session, commitment_id: int, attempts: int, seconds: float | None, why: str) -> None:
    """The report did not reach the peer in this attempt; try again in ``seconds``, or, when None, never."""
    if seconds is None:
        _change(session, commitment_id, attempts, state=CommitmentState.GIVEN_UP, last_failure=why)
    else:
        _change(session, commitment_id, attempts, due_at=now() + timedelta(seconds=seconds), last_failure=why)


def _change(session: Session, commitment_id: int, attempts: int, **values: object) -> None:
    of_attempt = Commitment.id == commitment_id, Commitment.attempts == attempts
    session.execute(update(Commitment).where(*of_attempt).values(**values))
