"""What became of claimed analyses: a batch's verdicts in one transaction, failures each in its own."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from time import monotonic, sleep
from typing import Any

from structlog.contextvars import bound_contextvars

from service import __version__, logs, telemetry, tracing
from service.analyse.pipeline import Assessment
from service.archive.store import archive
from service.compliance.outcome import Verdict
from service.db import analyses, remarks
from service.db.analyses import Assignment, Claim, Seen
from service.db.session import database
from service.db.tables import now
from service.dicom.remarks import Remark, read_remarks
from service.errors import (
    DamagedObject,
    DatabaseAway,
    DecoderFailed,
    DicomError,
    LeaseLost,
    NetworkError,
    NotArchived,
    NotFound,
    SonomarkError,
    StorageError,
    Unreadable,
)
from service.failpoints import fp
from service.jobs import judge
from service.settings import settings

log = logs.get(__name__)

AGAIN_S = 0.5
TOKEN_LETTERS = 8
LOST_AFTER_S = 3600.0  # in the queue: by then another machine's outbox has sent up what it owes the bucket
UNREADABLE_AFTER_S = 3600.0  # in the queue: by then a share that was mounted anew is read again

Answer = Assessment | Exception | None  # of an instance: what is on it, why that cannot be told, or no pixels
Ended = tuple[Assignment, Answer]


@dataclass(frozen=True)
class Ready:
    """An instance whose answer is there and waits to be recorded."""

    assignment: Assignment
    assessment: Assessment | None
    frames: list[Seen]
    masks: list[tuple[str, bytes]]  # key and PNG of each
    remarks: list[Remark] | None  # of an object without pixels


def end(batch: Sequence[Ended], started: datetime) -> bool:
    """Bring claimed analyses to their ends, or back into the queue. Never raises.

    False when the house is out of order (archive, device, database), so that there is no use in going on at once.
    """
    until = monotonic() + settings().lease_s
    while (failed := _recorded(batch, started)) is None:
        # A database that was restarted is back within seconds: sooner than the leases run out and all is done again.
        if monotonic() > until:
            log.warning("database away, the leases will run out")
            return False
        sleep(AGAIN_S)
    for one, reason in failed:
        with _bound(one):
            _give_back_or_up(one, reason)
    return not any(_of_the_house(one, reason) for one, reason in failed)


def _recorded(batch: Sequence[Ended], started: datetime) -> list[tuple[Assignment, Exception]] | None:
    """Record what can be; the others with what is wrong with them. None: the database is away, nothing was written."""
    failed: list[tuple[Assignment, Exception]] = []
    ready: list[Ready] = []
    for one, answer in batch:
        try:
            if isinstance(answer, Exception):
                raise answer
            ready.append(Ready(one, answer, _frames(one, answer), _masks(one, answer), _remarks(one)))
        except Exception as error:  # noqa: BLE001 - one instance never stops the line
            failed.append((one, error))
    try:
        # In the archive before the rows that name them are in the database.
        archive().put_all([mask for each in ready for mask in each.masks])
    except SonomarkError as error:
        return failed + [(each.assignment, error) for each in ready]
    try:
        return failed + _record(ready, started)
    except DatabaseAway as error:
        log.warning("database away, recording waits", cause=error.what)
        return None
    except Exception as error:  # noqa: BLE001 - nor does a commit that failed
        if len(batch) == 1:
            return [*failed, (batch[0][0], error)]
        # One of them is at fault; which, they say one by one. Where the database goes away meanwhile, leases run out.
        return [each for one in batch for each in _recorded([one], started) or ()]


def _record(ready: Sequence[Ready], started: datetime) -> list[tuple[Assignment, Exception]]:
    """Frames, annotations, verdicts and the ends of the claims in one transaction; returns what could not be recorded.

    A lost lease takes back its own instance alone.
    """
    if not ready:
        return []
    with database().begin() as session:
        # The claims' ends come first: they say of what this worker may write at all.
        ends = {each.assignment.held: _versions(each, started) for each in ready}
        finished = analyses.finish_all(session, ends)
        mine = [each for each in ready if each.assignment.held in finished]
        frames = [frame for each in mine for frame in each.frames]
        analyses.keep_frames(session, finished, frames)
        for each in mine:
            if each.remarks is not None:
                remarks.keep(session, each.assignment.held.instance_id, each.remarks)
        verdicts = judge.judge_instances(session, [each.assignment.held.instance_id for each in mine], frames)
        fp("analyse.before_verdict_commit")
    fp("analyse.after_verdict_commit")
    for each in mine:
        one, verdict = each.assignment, verdicts[each.assignment.held.instance_id]
        telemetry.ASSESSED.labels("done").inc()
        _trace(one, verdict, waited_s=_waited_s(one, started), started=started)
        with _bound(one):
            log.info("assessed", verdict=verdict.value, frames=len(each.frames), attempt=one.held.attempt)
    lost = [each for each in ready if each.assignment.held not in finished]
    _forget_masks(lost)
    losers = [each.assignment for each in lost]
    return [(one, LeaseLost(f"Analysis {one.held.analysis_id} is held by another worker.")) for one in losers]


def _forget_masks(lost: Sequence[Ready]) -> None:
    """Remove the masks of claims that were lost, unless rows name them: a commit whose end nobody heard was one."""
    keys = [key for each in lost for key, _ in each.masks]
    if not keys:
        return
    with suppress(SonomarkError):  # a few kilobytes that nothing names
        with database().read() as session:
            named = analyses.mask_keys(session, [each.assignment.held.analysis_id for each in lost])
        for key in keys:
            if key not in named:
                archive().delete(key)


def _waited_s(one: Assignment, started: datetime) -> float:
    return (started - one.held.queued_at).total_seconds()


def _trace(one: Assignment, verdict: Verdict, waited_s: float, started: datetime) -> None:
    took_s = (now() - started).total_seconds()
    tracing.passed("queue", one.correlation_id, waited_s, took_s, analysis=one.held.analysis_id)
    tracing.passed("analyse", one.correlation_id, took_s, verdict=verdict.value, attempt=one.held.attempt)


def _bound(one: Assignment) -> Any:
    """Whatever is logged meanwhile names the analysis and the way of its image."""
    return bound_contextvars(analysis=one.held.analysis_id, correlation_id=one.correlation_id)


def _remarks(one: Assignment) -> list[Remark] | None:
    """What an object without pixels says of images; None for an image."""
    return None if one.number_of_frames else read_remarks(archive().path(one.archive_key))


def _frames(one: Assignment, assessment: Assessment | None) -> list[Seen]:
    """Rows for the assessed frames."""
    return [
        Seen(
            {
                "analysis_id": one.held.analysis_id,
                "number": frame.number,
                "rows": frame.rows,
                "columns": frame.columns,
                "scores": {kind: round(score, 6) for kind, score in frame.scores.items()},
                "text_read": frame.text_read,
                "mask_key": mask_key(one.held, frame.number) if frame.annotations else "",
            },
            [_annotation(mark) for mark in frame.annotations],
        )
        for frame in (assessment.frames if assessment else ())
    ]


def _masks(one: Assignment, assessment: Assessment | None) -> list[tuple[str, bytes]]:
    """The masks of the frames on which something was drawn."""
    return [
        (mask_key(one.held, frame.number), frame.mask_png())
        for frame in (assessment.frames if assessment else ())
        if frame.annotations
    ]


def mask_key(held: Claim, frame: int) -> str:
    """Where the archive keeps a frame's mask: a thousand analyses share a folder, for a new one costs a disk as much
    as a file does. Each claim has names of its own: who has lost its lease overwrites nothing of who has it now."""
    return f"masks/{held.analysis_id // 1000}/{held.analysis_id}-{held.token[:TOKEN_LETTERS]}-{frame}.png"


def _annotation(mark: Any) -> dict[str, Any]:
    x, y, width, height = mark.box
    return {
        "kind": mark.kind.value,
        "score": mark.score,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "pixels": mark.pixels,
        "source": mark.source,
        "text": mark.text,
        "text_score": mark.text_score,
    }


def _versions(ready: Ready, started: datetime) -> dict[str, Any]:
    """Which versions gave the answer, and how long each step took."""
    assessment, waited = ready.assessment, {"wait": round(_waited_s(ready.assignment, started) * 1000, 3)}
    if assessment is None:
        return {"code_version": __version__, "milliseconds": waited}
    return {
        "code_version": __version__,
        "milliseconds": {**waited, **assessment.milliseconds},
        "network": assessment.network,
        "thresholds": assessment.thresholds,
        "bands": {kind: list(band) for kind, band in assessment.bands.items()},
        "provider": assessment.provider,
    }


def _give_back_or_up(one: Assignment, error: Exception) -> None:
    """Bytes that cannot be decoded stay so: quarantine at once. Anything else deserves its attempts.

    What is wrong with the house is not the instance's fault and is not counted against it.
    """
    held = one.held
    if isinstance(error, LeaseLost):
        telemetry.ASSESSED.labels("lease_lost").inc()
        log.warning("another worker took over, dropped", attempt=held.attempt)
        return
    if isinstance(error, Unreadable):
        with suppress(SonomarkError):  # where it lies for good nobody answers: it is tried again all the same
            archive().fetch_anew(one.archive_key)
    what, cure = _reason(error)
    hopeless = isinstance(error, (DicomError, DamagedObject)) and not isinstance(error, DecoderFailed)
    house = _of_the_house(one, error)
    try:
        with database().begin() as session:
            if hopeless or (held.attempt >= settings().max_attempts and not house):
                if analyses.quarantine(session, held, what, cure):
                    judge.judge_given_up(session, held.instance_id)
                outcome = "quarantined"
            else:
                analyses.hand_back(session, held, what, cure, counted=not house)
                outcome = "handed_back"
    except DatabaseAway as away:
        log.warning("database away, the lease will run out", cause=away.what)
        return
    telemetry.ASSESSED.labels(outcome).inc()
    log.warning(outcome.replace("_", " "), attempt=held.attempt, reason=what, cure=cure)


def _of_the_house(one: Assignment, error: Exception) -> bool:
    """Storage or device, and no instance, is to blame: not for what was lost or lies on a bad sector alone, but for all
    that is not mounted."""
    if isinstance(error, NotArchived):
        return _waited_s(one, now()) < LOST_AFTER_S
    if isinstance(error, Unreadable):
        return _waited_s(one, now()) < UNREADABLE_AFTER_S or not _disk_proves_itself()
    if isinstance(error, (NotFound, FileNotFoundError)):
        return not archive().is_there()
    return isinstance(error, (StorageError, NetworkError)) and not isinstance(error, DamagedObject)


def _disk_proves_itself() -> bool:
    try:
        archive().prove()
    except SonomarkError:
        return False
    return True


def _reason(error: Exception) -> tuple[str, str]:
    """For a person to read. Texts of foreign exceptions may quote patient data and are not repeated."""
    if isinstance(error, SonomarkError):
        return error.what, error.cure
    return (
        f"The analysis failed unexpectedly ({type(error).__name__}).",
        "Queue it again; if it fails again, report it with the worker's log.",
    )
