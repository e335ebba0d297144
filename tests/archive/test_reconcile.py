"""Both ways compared, repaired where that is safe, and nothing deleted."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from service.archive.reconcile import reconcile
from service.archive.remote import RemoteStore
from service.archive.store import ArchiveStore, archive
from service.archive.verify import verify
from service.db import checks
from service.db.session import Database
from service.db.tables import Analysis, Condition, Instance, now
from service.errors import DiskFault
from tests.archive.conftest import S3Server, objects
from tests.archive.shelf import at_once, shelve, spoil
from tests.receive.conftest import instances


@pytest.fixture
def store(db: Database) -> ArchiveStore:
    archive.cache_clear()
    return archive()


def forget(db: Database, row: Instance) -> None:
    with db.begin() as session:
        session.execute(delete(Analysis).where(Analysis.instance_id == row.id))
        session.execute(delete(Instance).where(Instance.id == row.id))


def test_looking_changes_nothing_and_repairing_registers(db: Database, store: ArchiveStore) -> None:
    lost, orphan, _ = (shelve(db, store) for _ in range(3))
    data = store.get(lost.archive_key)
    store.delete(lost.archive_key)
    forget(db, orphan)
    store.put("instances/00/" + "0" * 64 + ".dcm", b"not DICOM")
    seen = reconcile(store, db, at_once, repair=False)
    assert (seen.registered, seen.stray, seen.missing) == (1, 1, 1)
    assert len(instances(db)) == 2
    done = reconcile(store, db, at_once)
    assert (done.registered, done.stray, done.missing) == (1, 1, 1)
    assert orphan.sha256 in {row.sha256 for row in instances(db)}
    with db.read() as session:
        assert [check.condition for _, check in checks.ill(session)] == [Condition.MISSING]
    store.put(lost.archive_key, data)  # somebody restored it
    assert reconcile(store, db, at_once).returned == 1
    with db.read() as session:
        assert checks.health(session).ill == 0
    assert verify(store, db, now()).ok == 3


def test_one_file_on_a_bad_sector_keeps_no_others_back(
    db: Database, store: ArchiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be anybody's only copy: it is kept and told of, and those behind it are registered all the same."""
    bad, *orphans = sorted((shelve(db, store) for _ in range(3)), key=lambda row: row.sha256)
    for row in (bad, *orphans):
        forget(db, row)
    stream = ArchiveStore.stream

    def fails(self: ArchiveStore, key: str) -> Iterator[bytes]:
        if key == bad.archive_key:
            raise DiskFault("A sector cannot be read.")
        return stream(self, key)

    monkeypatch.setattr(ArchiveStore, "stream", fails)
    done = reconcile(store, db, at_once)
    assert (done.registered, done.stray) == (2, 1)
    assert store.place(bad.archive_key).exists()


def test_a_bucket_is_compared_and_mended(db: Database, remote: RemoteStore, s3: S3Server) -> None:
    bad, orphan, waiting = (shelve(db, remote) for _ in range(3))
    remote.outbox.upload()
    whole = objects(s3)
    key = f"sonomark/{bad.archive_key}"
    s3.client().put_object(Bucket="house", Key=key, Body=whole[key][:-1] + b"x")
    forget(db, orphan)
    waiting = shelve(db, remote)  # not up yet: neither stray nor missing
    assert verify(remote, db, now()).damaged == 1
    done = reconcile(remote, db, at_once)
    assert (done.registered, done.missing, done.stray, done.mended) == (1, 0, 0, 1)
    assert objects(s3)[key] == whole[key]
    assert waiting.sha256 in {row.sha256 for row in instances(db)}
    spoil(remote, bad.archive_key)  # a bad copy here mends nothing
    s3.client().delete_object(Bucket="house", Key=key)
    done = reconcile(remote, db, at_once)
    assert (done.missing, done.mended) == (1, 0)
