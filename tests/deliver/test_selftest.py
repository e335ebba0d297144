"""A self-test where the archive is a bucket, which has an instance a moment after it was acknowledged."""

import time
from collections.abc import Iterator
from threading import Timer

import pytest
from sqlalchemy import select, update

from service.archive.remote import RemoteStore
from service.archive.store import archive
from service.db import selftests
from service.db.session import Database
from service.db.tables import Instance, Study
from service.deliver import selftest
from tests.archive.conftest import S3Server, objects, s3, s3_server  # noqa: F401 - fixtures
from tests.review import ward


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(selftest, "PATIENCE_S", 0.1)
    yield
    archive.cache_clear()


def admitted(db: Database) -> str:
    """A self-test's study that has ended and is still there."""
    uid = ward.admit(db, 1)
    with db.begin() as session:
        selftests.begin(session, "ann", uid).finished_at = selftests.now()
        session.execute(update(Study).where(Study.study_instance_uid == uid).values(synthetic=True))
    return uid


def test_what_is_on_its_way_to_the_bucket_is_removed_with_its_rows_or_not_at_all(
    s3: S3Server,  # noqa: F811
    db: Database,
    impatient: None,
) -> None:
    """Without a row its file would be registered at the next reconciliation, as a patient's."""
    uid, store = admitted(db), archive()
    assert isinstance(store, RemoteStore)
    with db.read() as session:
        key = session.scalars(select(Instance.archive_key)).one()
    store.outbox.add([(store.place(key), key)])
    assert not selftest._remove(uid).ok
    with db.read() as session:
        assert selftests.seen(session, uid) is not None
    store.outbox.upload()
    selftest.begin("ann")
    with db.read() as session:
        assert selftests.seen(session, uid) is None
    assert not [each for each in objects(s3) if key in each]


def test_an_instance_of_another_machine_is_waited_for(s3: S3Server, db: Database) -> None:  # noqa: F811
    uid, store = admitted(db), archive()
    with db.read() as session:
        seen = selftests.seen(session, uid)
    assert seen is not None
    key = seen[1].archive_key
    data = store.get(key)
    store.delete(key)
    later = Timer(0.3, lambda: store.put(key, data))
    later.start()
    assert selftest._archived(seen, time.monotonic()).ok
    later.join()
