"""Judge studies again by their stored annotations, without the network: for good, or to see what a draft would change.

A re-evaluation is a row that is taken further in small steps, each one transaction. Whoever takes a step may die: the
next one starts where the last commit ended. As many processes as it has slices work at once. A Celery message only says
that there is something to do.
"""

from time import monotonic

from celery import shared_task
from kombu.exceptions import KombuError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import logs
from service.compliance import evaluate
from service.compliance.rulebook import Rulebook
from service.db import deliveries, facts, reevaluations, rulebooks, verdicts
from service.db.reevaluations import Change, Range
from service.db.session import Database, database
from service.db.tables import Reevaluation
from service.errors import Conflict
from service.jobs.app import app
from service.jobs.judge import judged_by

log = logs.get(__name__)

TASK = "sonomark.reevaluate"
STEP = 200  # studies a transaction
TURN_S = 1.0  # after which a worker rings for the rest and lets images go first


def ask(session: Session, rulebook_version_id: int, which: Range, by: str, *, records: bool) -> Reevaluation:
    """Ask for a re-evaluation (``records``) or a what-if; call `ring` after the commit.

    Raises Conflict when verdicts are to be written by a version that was never put in force.
    """
    version = rulebooks.get(session, rulebook_version_id)
    if records and version.activated_at is None and version.sha256 != rulebooks.in_force(session).sha256:
        raise Conflict(
            f"{version.name} {version.version} was never put in force, so no verdict is written by it.",
            cure="Put it in force first, or ask what it would say.",
        )
    return reevaluations.ask(session, rulebook_version_id, which, by, records=records)


def ring(reevaluation_id: int, times: int = reevaluations.AT_ONCE) -> None:
    """Tell so many workers; a message that is lost is made good by the sweeper's next `ring_for_unfinished`."""
    try:
        for _ in range(times):
            app().send_task(TASK, args=[reevaluation_id])
    except (KombuError, OSError) as error:
        log.warning("broker away", reevaluation=reevaluation_id, cause=type(error).__name__)


def ring_for_unfinished() -> int:
    """Ring for everything unfinished; returns how many. A step that another process is at is left to it."""
    with database().read() as session:
        ids = reevaluations.unfinished(session)
    for reevaluation_id in ids:
        ring(reevaluation_id)
    return len(ids)


@shared_task(name=TASK)  # type: ignore[untyped-decorator]
def reevaluate(reevaluation_id: int) -> None:
    """A worker's turn."""
    if not run(database(), reevaluation_id, for_s=TURN_S):
        ring(reevaluation_id, times=1)


def run(db: Database, reevaluation_id: int, for_s: float | None = None) -> bool:
    """Take steps until it is over, or for so many seconds; returns whether nothing is left for this process to do."""
    started = monotonic()
    while for_s is None or monotonic() - started < for_s:
        with db.begin() as session:
            if not step(session, reevaluation_id):
                return True
    return False


def step(session: Session, reevaluation_id: int, limit: int = STEP) -> bool:
    """Judge the next studies of a slice; False when it is over, cancelled, or in other processes' hands."""
    part = reevaluations.take(session, reevaluation_id)
    if part is None:
        return False
    asked = part.reevaluation
    ids = reevaluations.next_studies(session, part, limit)
    rulebook = rulebooks.parsed(rulebooks.get(session, asked.rulebook_version_id))
    changed, failed = _judge_each(session, rulebook, ids, records=asked.records)
    reevaluations.advance(session, part, ids, changed, failed)
    if asked.finished_at is not None:
        told = {"studies": asked.done, "failed": asked.failed, "rulebook": rulebook.label}
        log.info("re-evaluated", reevaluation=asked.id, **told)
    return asked.finished_at is None


def _judge_each(session: Session, rulebook: Rulebook, ids: list[int], *, records: bool) -> tuple[list[Change], int]:
    """What changed, and how many studies cannot be judged: these keep their verdicts, and no other from its own."""
    try:
        with session.begin_nested():
            return _judge(session, rulebook, ids, records=records), 0
    except SQLAlchemyError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it would be so the next time
        if len(ids) == 1:
            log.error("study not judged again", study=ids[0], error=type(error).__name__)
            return [], 1
    alone = [_judge_each(session, rulebook, [study_id], records=records) for study_id in ids]
    return [change for changed, _ in alone for change in changed], sum(failed for _, failed in alone)


def _judge(session: Session, rulebook: Rulebook, ids: list[int], *, records: bool) -> list[Change]:
    before = verdicts.of_studies(session, ids)
    known = facts.of_studies(session, ids)
    studies = [record for record in (known[study_id] for study_id in ids if study_id in known) if not record.in_flight]
    if records:
        judged = [each for record in studies for each in judged_by(rulebook, record)]
        outcomes = {each.study_id: each.outcome for each in judged if each.instance_id is None}
        written = {each.study_id for each in verdicts.record_all(session, judged) if each.instance_id is None}
        verdicts.settle_all(session, {study_id: outcomes[study_id].verdict for study_id in written})
        deliveries.plan_anew(session, written)
    else:
        outcomes = {record.study_id: evaluate.judge_study(rulebook, record.facts) for record in studies}
    return [
        (before.get(record.study_id), outcomes[record.study_id].verdict, record.facts.study_instance_uid)
        for record in studies
        if before.get(record.study_id) is not outcomes[record.study_id].verdict
    ]
