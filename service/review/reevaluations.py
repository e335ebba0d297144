"""Judging again by a rule book, over any range of days: asked for here, done in the background."""

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, model_validator

from service.db import audit, double_reads, reevaluations
from service.db.days import end_of, start_of
from service.db.reevaluations import Range
from service.db.session import database
from service.db.tables import Reevaluation
from service.jobs import reevaluate
from service.review.deps import Account, Admin, Reader
from service.review.problems import PROBLEM_RESPONSES
from service.review.schemas import Id, Moment

router = APIRouter(prefix="/api/reevaluations", tags=["rule books"], responses=PROBLEM_RESPONSES)


class Wanted(BaseModel):
    """Which studies, by the hospital's day on which their last image came; without days all of them."""

    rulebook: Id = Field(description="Id of the version to judge by.")
    first_day: date | None = None
    last_day: date | None = Field(None, description="Included.")
    records: bool = Field(True, description="False: a what-if, which writes no verdict.")

    @model_validator(mode="after")
    def _in_order(self) -> "Wanted":
        if self.first_day and self.last_day and self.last_day < self.first_day:
            raise ValueError("the last day lies before the first")
        return self


class Progress(BaseModel):
    id: int
    rulebook: int
    records: bool
    requested_by: str
    total: int
    done: int
    failed: int = Field(description="Studies that could not be judged and keep their verdicts; see the worker's log.")
    created_at: Moment
    finished_at: Moment | None
    cancelled_at: Moment | None
    changes: dict[str, Any] = Field(description='{"compliant>non_compliant": {"count": n, "studies": [uid, …]}}')


@router.post("", status_code=202)
def ask(account: Admin, wanted: Wanted) -> Progress:
    """Judge studies again from their stored annotations, without the network, in the background."""
    start = start_of(wanted.first_day) if wanted.first_day else None
    end = end_of(wanted.last_day) if wanted.last_day else None
    with database().begin() as session:
        asked = reevaluate.ask(session, wanted.rulebook, Range(start, end), account.user.name, records=wanted.records)
        detail = {"rulebook": wanted.rulebook, "records": wanted.records}
        audit.record(session, account.user.name, "reevaluation.ask", str(asked.id), account.address, detail)
    reevaluate.ring(asked.id)
    return _progress(asked, account)


@router.get("")
def newest(account: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[Progress]:
    """The last re-evaluations and what-ifs, newest first."""
    with database().read() as session:
        return [_progress(each, account) for each in reevaluations.newest(session, limit)]


@router.get("/{number}")
def one(number: Id, account: Reader) -> Progress:
    """How far it has come, and which verdicts it changed."""
    with database().read() as session:
        return _progress(reevaluations.get(session, number), account)


@router.post("/{number}/cancel")
def cancel(number: Id, account: Admin) -> Progress:
    """Stop it after the step under way; verdicts that were written stay."""
    with database().begin() as session:
        found = reevaluations.cancel(session, number)
        audit.record(session, account.user.name, "reevaluation.cancel", str(number), account.address)
        return _progress(found, account)


def named_to(account: Account, changes: dict[str, Any] | None) -> dict[str, Any]:
    """The changes with complete counts, naming no study to an account of one site and none whose blinded answer waits.

    The stored names do not say whose site they are of.
    """
    found = changes or {}
    hidden: set[str] = set()
    if account.second_reader is not None and not account.site:
        uids = {uid for counted in found.values() for uid in counted["studies"]}
        with database().read() as session:
            hidden = double_reads.withheld(session, uids, account.second_reader) if uids else set()
    return {
        change: {**counted, "studies": [uid for uid in counted["studies"] if not account.site and uid not in hidden]}
        for change, counted in found.items()
    }


def _progress(of: Reevaluation, account: Account) -> Progress:
    return Progress(
        id=of.id,
        rulebook=of.rulebook_version_id,
        records=of.records,
        requested_by=of.requested_by,
        total=of.total,
        done=of.done,
        failed=of.failed,
        created_at=of.created_at,
        finished_at=of.finished_at,
        cancelled_at=of.cancelled_at,
        changes=named_to(account, of.changes),
    )
