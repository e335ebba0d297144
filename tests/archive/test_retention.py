"""Bytes go when, and only when, a policy that a person activated releases them and nothing protects them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.archive import retention as keeping
from service.archive.policy import Policy, digest, parse
from service.archive.reconcile import reconcile
from service.archive.retention import finish_releases, outlook, release_due
from service.archive.store import ArchiveStore, archive
from service.db import audit, checks, retention, studies
from service.db.session import Database
from service.db.tables import (
    Analysis,
    AnalysisState,
    Condition,
    Decision,
    Delivery,
    DeliveryKind,
    DoubleRead,
    Hold,
    Instance,
    Release,
    Role,
    Study,
    Verdict,
    VerdictRecord,
    now,
)
from service.db.users import create_user
from service.errors import ConfigurationError, Conflict, StorageError
from service.jobs.keep import Keeper
from service.settings import settings
from tests.archive.shelf import at_once, shelve, study
from tests.receive.conftest import ultrasound

YEAR = """
name = "a year"
[[rules]]
name = "north"
keep_days = 365
institutions = ["North"]
"""


@pytest.fixture
def store(db: Database) -> ArchiveStore:
    archive.cache_clear()
    return archive()


def activate(db: Database, toml: str = YEAR) -> Policy:
    policy = parse(toml)
    with db.begin() as session:
        draft = retention.keep_draft(session, policy.name, digest(toml), toml, "boss")
        retention.activate(session, draft, "boss")
    return policy


def keys(db: Database, uid: str) -> list[str]:
    with db.read() as session:
        return list(session.scalars(select(Instance.archive_key).join(Study).where(Study.study_instance_uid == uid)))


def test_nothing_goes_without_an_activated_policy(db: Database, store: ArchiveStore) -> None:
    uid = study(db, store)
    with db.begin() as session:
        retention.keep_draft(session, "a year", digest(YEAR), YEAR, "boss")
        assert len(outlook(session, parse(YEAR)).due) == 1
    assert release_due(store, db, "test") == 0
    assert all(store.exists(key) for key in keys(db, uid))


def test_what_is_due_goes_and_leaves_its_tombstone(db: Database, store: ArchiveStore) -> None:
    old, young, elsewhere = study(db, store), study(db, store, days=300), study(db, store, institution="South")
    activate(db)
    assert release_due(store, db, "test") == 1
    assert not any(store.exists(key) for key in keys(db, old))
    assert all(store.exists(key) for uid in (young, elsewhere) for key in keys(db, uid))
    with db.read() as session:
        kept = studies.find(session, old)
        assert kept.verdict is Verdict.COMPLIANT and len(kept.instances) == 2  # the rows stay
        stones = [session.get_one(Release, each.id) for each in kept.instances]
        assert all(each.deleted_at and each.rule == "north" for each in stones)
        events = audit.search(session, action="retention.release")
        assert [event.subject for event in events] == [old]
        assert events[0].detail["instances"] == 2 and events[0].detail["activated_by"] == "boss"
        assert audit.verify(session).whole
    assert release_due(store, db, "test") == 0  # once
    assert reconcile(store, db, at_once).missing == 0  # gone on purpose is not missing


Change = Callable[[Database, int], None]


def _row(**values: object) -> Change:
    def change(db: Database, study_id: int) -> None:
        with db.begin() as session:
            session.execute(update(Study).where(Study.id == study_id).values(**values))

    return change


def _analysis(state: AnalysisState) -> Change:
    def change(db: Database, study_id: int) -> None:
        with db.begin() as session:
            first = session.scalar(select(Instance.id).where(Instance.study_id == study_id).limit(1))
            session.execute(update(Analysis).where(Analysis.instance_id == first).values(state=state))

    return change


def _on_hold(db: Database, study_id: int) -> None:
    with db.begin() as session:
        retention.place_hold(session, session.get_one(Study, study_id), "lawsuit", "boss")


def _in_hand(db: Database, study_id: int) -> None:
    with db.begin() as session:
        user = create_user(session, "reader", Role.REVIEWER)
        session.add(Hold(study_id=study_id, user_id=user.id, expires_at=now() + timedelta(hours=1)))


def _double_read(db: Database, study_id: int) -> None:
    with db.begin() as session:
        session.add(DoubleRead(study_id=study_id))


def _delivery(db: Database, study_id: int) -> None:
    with db.begin() as session:
        verdict = VerdictRecord(study_id=study_id, verdict=Verdict.COMPLIANT, rulebook="test@1", code_version="1")
        session.add(verdict)
        session.flush()
        target = "PACS@127.0.0.1:104"
        session.add(Delivery(study_id=study_id, verdict_id=verdict.id, kind=DeliveryKind.REPORT, target=target))


def _instance_in_conflict(db: Database, study_id: int) -> None:
    with db.begin() as session:
        session.execute(update(Instance).where(Instance.study_id == study_id).values(conflict=True))


PROTECTED: dict[str, tuple[str, Change]] = {
    "legal hold": ("under legal hold", _on_hold),
    "queued": ("in flight or quarantined", _analysis(AnalysisState.QUEUED)),
    "claimed": ("in flight or quarantined", _analysis(AnalysisState.CLAIMED)),
    "quarantined": ("in flight or quarantined", _analysis(AnalysisState.QUARANTINED)),
    "unsettled": ("not settled or not judged", _row(settled=False)),
    "not judged": ("not settled or not judged", _row(verdict=None)),
    "flagged": ("flagged and not reviewed", _row(verdict=Verdict.NON_COMPLIANT)),
    "uncertain": ("flagged and not reviewed", _row(verdict=Verdict.INDETERMINATE)),
    "study in conflict": ("in conflict", _row(conflict=True)),
    "instance in conflict": ("in conflict", _instance_in_conflict),
    "taken in hand": ("in a person's hands", _in_hand),
    "to be delivered": ("still to be delivered", _delivery),
    "second reading": ("waiting for a second reading", _double_read),
}


@pytest.mark.parametrize("case", PROTECTED)
def test_what_is_protected_stays(case: str, db: Database, store: ArchiveStore) -> None:
    why, change = PROTECTED[case]
    uid = study(db, store)
    with db.read() as session:
        study_id = studies.brief(session, uid).id
    change(db, study_id)
    activate(db)
    with db.read() as session:
        found = outlook(session, parse(YEAR))
    assert not found.due and found.kept_back == {why: 1}
    assert release_due(store, db, "test") == 0
    # Protection that came after the dry run holds as well.
    with db.begin() as session:
        active = retention.in_force(session)
        assert active is not None
        assert retention.release(session, study_id, active.id, "north", now()) == 0
    assert all(store.exists(key) for key in keys(db, uid))


def test_a_reviewed_flag_protects_no_longer(db: Database, store: ArchiveStore) -> None:
    uid = study(db, store, verdict=Verdict.NON_COMPLIANT)
    with db.begin() as session:
        session.execute(update(Study).values(decision=Decision.CONFIRM))
    activate(db)
    assert release_due(store, db, "test") == 1
    assert not any(store.exists(key) for key in keys(db, uid))


def test_a_lifted_hold_protects_no_longer(db: Database, store: ArchiveStore) -> None:
    uid = study(db, store)
    with db.begin() as session:
        found = studies.brief(session, uid)
        retention.place_hold(session, found, "lawsuit", "boss")
        with pytest.raises(Conflict):
            retention.place_hold(session, found, "again", "boss")
    activate(db)
    assert release_due(store, db, "test") == 0
    with db.begin() as session:
        retention.lift_hold(session, studies.brief(session, uid), "boss")
    assert release_due(store, db, "test") == 1


def test_the_same_bytes_again_are_wanted_again(db: Database, store: ArchiveStore) -> None:
    uid = study(db, store, images=1)
    image = ultrasound(StudyInstanceUID=uid, InstitutionName="North")
    row = shelve(db, store, image)
    with db.begin() as session:
        session.execute(update(Study).values(last_received_at=now() - timedelta(days=400), settled=True))
        session.execute(update(Study).values(verdict=Verdict.COMPLIANT))
        session.execute(update(Analysis).values(state=AnalysisState.DONE))
    activate(db)
    assert release_due(store, db, "test") == 1
    assert shelve(db, store, image).id == row.id
    assert store.exists(row.archive_key)
    with db.read() as session:
        assert session.get(Release, row.id) is None
    assert reconcile(store, db, at_once).deleted == 0


def test_what_was_ill_and_is_given_up_is_ill_no_more(db: Database, store: ArchiveStore) -> None:
    uid = study(db, store)
    with db.read() as session:
        ids = list(session.scalars(select(Instance.id)))
    with db.begin() as session:
        checks.record(session, dict.fromkeys(ids, Condition.MISSING))
    activate(db)
    assert release_due(store, db, "test") == 1
    with db.begin() as session:
        checks.record(session, {ids[0]: Condition.MISSING})  # a look that began before the bytes were given up
    with db.read() as session:
        assert checks.health(session).ill == 0 and not checks.ill(session)
    assert not any(store.exists(key) for key in keys(db, uid))


def test_a_hold_that_comes_between_tombstone_and_deletion_keeps_the_bytes(
    db: Database, store: ArchiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = study(db, store)
    activate(db)
    with monkeypatch.context() as away:
        away.setattr(store, "delete", lambda _: (_ for _ in ()).throw(StorageError("The bucket is away.")))
        assert release_due(store, db, "test") == 1
    with db.begin() as session:
        retention.place_hold(session, studies.brief(session, uid), "lawsuit", "boss")
    assert finish_releases(store, db) == 0
    assert all(store.exists(key) for key in keys(db, uid))
    with db.begin() as session:
        retention.lift_hold(session, studies.brief(session, uid), "boss")
    assert finish_releases(store, db) == 2


def test_a_hold_that_is_being_placed_is_waited_for(any_db: Database, tmp_path: Path) -> None:
    """PostgreSQL asks what protects a study as of the moment at which it began to wait for its lock."""
    store = ArchiveStore(tmp_path / "archive")
    uid = study(any_db, store)
    activate(any_db)
    with any_db.read() as session:
        study_id, active = studies.brief(session, uid).id, retention.in_force(session)
    assert active is not None

    def release() -> int:
        with any_db.begin() as session:
            return retention.release(session, study_id, active.id, "north", now())

    with ThreadPoolExecutor(1) as pool:
        with any_db.begin() as session:
            retention.place_hold(session, studies.brief(session, uid), "lawsuit", "boss")
            released = pool.submit(release)
            time.sleep(0.5)  # it asks, and waits
        assert released.result(10) == 0


def test_a_killed_deletion_is_finished(db: Database, store: ArchiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = study(db, store)
    activate(db)

    def fail(*_: object) -> int:
        raise StorageError("The disk is away.")

    with monkeypatch.context() as broken:
        broken.setattr(keeping, "_delete", fail)
        assert release_due(store, db, "test") == 1  # said and audited, not done
    assert all(store.exists(key) for key in keys(db, uid))
    assert finish_releases(store, db) == 2
    assert not any(store.exists(key) for key in keys(db, uid))


def test_a_jumping_clock_releases_nothing(db: Database, store: ArchiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = study(db, store, days=364)
    study(db, store, days=0)
    activate(db)
    keeper = Keeper(store, db, settings())
    from service.jobs import keep

    real = keep.time.time
    monkeypatch.setattr(keep.time, "time", lambda: real() + 3 * 86400)
    monkeypatch.setattr(keeping, "now", lambda: now() + timedelta(days=3))
    keeper.round()
    keeper.round()
    assert all(store.exists(key) for key in keys(db, uid))
    monkeypatch.setattr(keep, "JUMP_S", 1e9)  # the same without the guard: the test can fail
    Keeper(store, db, settings()).round()
    assert not any(store.exists(key) for key in keys(db, uid))


def test_a_sweeper_that_begins_with_a_wrong_clock_releases_nothing(
    db: Database, store: ArchiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that starts with its clock two years ahead: no process of it has seen a jump."""
    from service.jobs import keep

    uid = study(db, store, days=1)
    activate(db)
    for module in (keep, keeping):
        monkeypatch.setattr(module, "now", lambda: now() + timedelta(days=730))
    Keeper(store, db, settings()).round()
    assert all(store.exists(key) for key in keys(db, uid))
    monkeypatch.setattr(keep, "QUIET_S", 1e9)  # the same without the guard: the test can fail
    Keeper(store, db, settings()).round()
    assert not any(store.exists(key) for key in keys(db, uid))


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("name = 'x'", "rules: Field required"),
        ("name = 'x'\n[[rules]]\nname = 'y'\nkeep_days = 0", "rules.1.keep_days"),
        ("name = 'x'\n[[rules]]\nname = 'y'\nkeep_days = 9\ninstitution = 'z'", "rules.1.institution: Extra inputs"),
        ("name = [", "no TOML"),
    ],
)
def test_a_wrong_policy_is_named(toml: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(toml)
    assert words in refused.value.what


def test_the_first_rule_that_fits_decides(db: Database, store: ArchiveStore) -> None:
    uid = study(db, store)
    toml = "name='x'\n[[rules]]\nname='long'\nkeep_days=3650\nmodalities=['US']\n" + YEAR.split('"a year"')[1]
    with db.read() as session:
        assert not outlook(session, parse(toml)).due
        assert [each.study_instance_uid for each in outlook(session, parse(YEAR)).due] == [uid]
