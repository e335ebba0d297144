"""Giving bytes up: only what the policy that a person activated releases, and nothing that anything protects.

A release is written and audited first (the tombstone), the bytes go afterwards: a process that is killed in between
leaves a tombstone without `deleted_at`, and the next round finishes it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from service import logs
from service.archive.cache import pictures
from service.archive.policy import Policy, Traits, parse
from service.archive.store import ArchiveStore
from service.db import audit, retention
from service.db.retention import Candidate
from service.db.session import Database
from service.db.tables import now
from service.errors import StorageError

log = logs.get(__name__)

DELETED_AT_ONCE = 20  # objects a transaction, which locks their study meanwhile


@dataclass(frozen=True, slots=True)
class Due:
    """A study whose bytes the policy releases."""

    study_id: int
    study_instance_uid: str
    institution: str
    last_received_at: datetime
    rule: str
    keep_days: int
    instances: int
    octets: int


@dataclass(slots=True)
class Outlook:
    """A dry run: what would go, and what is old enough to go but protected."""

    due: list[Due] = field(default_factory=list)
    kept_back: Counter[str] = field(default_factory=Counter)

    @property
    def octets(self) -> int:
        return sum(each.octets for each in self.due)


def outlook(session: Session, policy: Policy, at: datetime | None = None, limit: int = 100_000) -> Outlook:
    """What this policy would release at that moment (now). Changes nothing."""
    at = at or now()
    found = Outlook()
    for candidate in retention.candidates(session, at - timedelta(days=policy.shortest_days)):
        rule = policy.rule_for(_traits(candidate))
        study = candidate.study
        if rule is None or study.last_received_at >= at - timedelta(days=rule.keep_days):
            continue
        if candidate.protection:
            found.kept_back[candidate.protection] += 1
            continue
        found.due.append(
            Due(
                study.id,
                study.study_instance_uid,
                study.institution,
                study.last_received_at,
                rule.name,
                rule.keep_days,
                candidate.instances,
                candidate.octets,
            )
        )
        if len(found.due) >= limit:
            break
    return found


def release_due(
    store: ArchiveStore,
    db: Database,
    actor: str,
    on_released: Callable[[], None] = lambda: None,
    limit: int = 100_000,
) -> int:
    """Do what the policy in force says; how many studies were given up. Nothing without such a policy.

    Bytes that the archive does not delete now are deleted by a later round of `finish_releases`.
    """
    at = now()
    with db.read() as session:
        active = retention.in_force(session)
        due = outlook(session, parse(active.toml), at, limit).due if active is not None else []
    released = 0
    for each in due:
        assert active is not None
        before = at - timedelta(days=each.keep_days)
        with db.begin() as session:
            count = retention.release(session, each.study_id, active.id, each.rule, before)
            if count:
                told = {"policy": active.name, "sha256": active.sha256, "rule": each.rule, "instances": count}
                told["activated_by"] = active.activated_by
                audit.record(session, actor, "retention.release", each.study_instance_uid, detail=told)
        if count:
            _try_delete(store, db, each.study_id)
            released += 1
            log.info("bytes released", study=each.study_id, instances=count, rule=each.rule, policy=active.name)
        on_released()
    return released


def finish_releases(store: ArchiveStore, db: Database) -> int:
    """Delete the bytes of tombstones that a killed or hindered process left; how many objects."""
    with db.read() as session:
        studies = retention.undone(session, limit=10_000)
    return sum(_try_delete(store, db, study_id) for study_id in studies)


def _try_delete(store: ArchiveStore, db: Database, study_id: int) -> int:
    """One study whose bytes cannot go now, such as one still on its way to the bucket, does not keep the others."""
    try:
        return _delete(store, db, study_id)
    except StorageError as error:
        log.warning("released bytes not deleted yet", study=study_id, reason=error.what, cure=error.cure)
        return 0


def _delete(store: ArchiveStore, db: Database, study_id: int) -> int:
    deleted = 0
    while True:
        with db.begin() as session:
            batch = retention.to_delete(session, study_id, DELETED_AT_ONCE)
            for each in batch:
                store.delete(each.archive_key)
                pictures().forget(f"{each.sha256[:2]}/{each.sha256}")
            retention.note_deleted(session, [each.instance_id for each in batch])
        deleted += len(batch)
        if len(batch) < DELETED_AT_ONCE:
            return deleted


def _traits(candidate: Candidate) -> Traits:
    study = candidate.study
    return Traits(
        institution=study.institution,
        station=study.station,
        calling_ae_title=study.calling_ae_title,
        modalities=candidate.modalities,
        verdict=study.verdict,
        synthetic=study.synthetic,
        study_date=study.study_date,
    )
