"""From facts in the database to verdicts in the database, within the caller's transaction."""

from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import logs
from service.compliance import evaluate
from service.compliance.outcome import Verdict
from service.compliance.rulebook import Rulebook
from service.db import deliveries, double_reads, facts, rulebooks, verdicts
from service.db.analyses import Seen
from service.db.facts import StudyRecord
from service.db.tables import now
from service.db.verdicts import Judged, Versions
from service.errors import NotFound
from service.settings import settings

log = logs.get(__name__)


def judge_instance(session: Session, instance_id: int) -> Verdict:
    """Judge one image that was just assessed or given up; its study too, when that was waiting for it alone."""
    return judge_instances(session, [instance_id])[instance_id]


def judge_instances(
    session: Session, instance_ids: Sequence[int], seen: Sequence[Seen] | None = None
) -> dict[int, Verdict]:
    """`judge_instance` for several at once, in as many statements as one takes; ``seen`` as in `facts.of_instances`.

    Raises NotFound.
    """
    images = facts.of_instances(session, instance_ids, seen)
    if missing := set(instance_ids) - {image.instance_id for image, _ in images}:
        raise NotFound(f"There is no instance {min(missing)}.")
    studies = verdicts.lock_all(session, {study_id for _, study_id in images})
    rulebook = rulebooks.in_force(session)
    judged = [
        Judged(
            study_id,
            image.instance_id,
            evaluate.judge_instance(rulebook, image.facts),
            Versions.of([image.network], [image.thresholds], rulebook.label),
        )
        for image, study_id in images
    ]
    verdicts.record_all(session, judged)
    for study_id, settles_at in studies:
        if settles_at <= now():
            judge_study(session, study_id)
    return {image.instance_id: each.outcome.verdict for (image, _), each in zip(images, judged, strict=True)}


def judge_given_up(session: Session, instance_id: int) -> None:
    """`judge_instance` of one that was quarantined: that it cannot even be judged does not keep it from its end."""
    try:
        with session.begin_nested():
            judge_instance(session, instance_id)
    except SQLAlchemyError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it would be so the next time
        log.error("quarantined without a verdict", instance=instance_id, error=type(error).__name__)


def judged_by(rulebook: Rulebook, record: StudyRecord) -> list[Judged]:
    """The study's outcome, and then those of its images: what came after an image may speak of it."""
    of_study = Judged(
        record.study_id,
        None,
        evaluate.judge_study(rulebook, record.facts),
        Versions.of(record.networks, record.thresholds, rulebook.label),
    )
    of_images = [
        Judged(
            record.study_id,
            image.instance_id,
            evaluate.judge_instance(rulebook, image.facts),
            Versions.of([image.network], [image.thresholds], rulebook.label),
        )
        for image in record.instances
    ]
    return [of_study, *of_images]


def judge_study(session: Session, study_id: int) -> Verdict | None:
    """Judge a study that has settled, and its images by all that came; None, and nothing changed, while an image may
    come or is still to be assessed."""
    study = verdicts.lock(session, study_id)
    if study is None:
        raise NotFound(f"There is no study {study_id}.")
    record = facts.of_studies(session, [study_id])[study_id]
    if record.in_flight or study.settles_at > now():
        return None
    rulebook = rulebooks.in_force(session)
    judged = judged_by(rulebook, record)
    outcome = judged[0].outcome
    changed = any(each.instance_id is None for each in verdicts.record_all(session, judged))
    verdicts.settle(session, study, outcome.verdict, changed=changed)
    double_reads.draw(session, study, settings().double_read_share)
    standing = verdicts.standing(session, study_id) if changed and deliveries.wanted() else None
    if standing is not None:
        deliveries.plan_verdict(session, study, standing)
    return outcome.verdict
