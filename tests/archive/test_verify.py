"""Bytes that went bad are found, by hand and by the sweeper's slices, and everybody is told."""

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from service.archive.remote import RemoteStore
from service.archive.store import ArchiveStore, archive
from service.archive.verify import digest, verify, verify_slice
from service.db import census, checks
from service.db.session import Database
from service.db.tables import Condition, Verification, now
from service.doctor import examine
from service.errors import StorageError
from service.settings import Settings, settings
from service.telemetry import house_exposition
from tests.archive.conftest import S3Server
from tests.archive.shelf import shelve, spoil


@pytest.fixture
def store(db: Database) -> ArchiveStore:
    archive.cache_clear()
    return archive()


def test_good_damaged_and_missing_are_told_apart(db: Database, store: ArchiveStore) -> None:
    _, bad, gone, torn = (shelve(db, store) for _ in range(4))
    spoil(store, bad.archive_key)
    store.delete(gone.archive_key)
    os.truncate(store.place(torn.archive_key), 100)
    found = verify(store, db, now())
    assert (found.ok, found.damaged, found.missing) == (1, 2, 1)
    with db.read() as session:
        ill = {stored.instance_id: check.condition for stored, check in checks.ill(session)}
        health = checks.health(session)
        census.take(session)
    assert ill == {bad.id: Condition.DAMAGED, gone.id: Condition.MISSING, torn.id: Condition.DAMAGED}
    assert (health.stored, health.checked, health.damaged, health.missing) == (4, 4, 2, 1)
    assert b'sonomark_archive_ill{condition="damaged"} 2.0' in house_exposition()
    answer = next(check for check in examine(settings()) if check.name == "archived objects")
    assert not answer.ok and "2 archived objects are damaged and 1 missing" in answer.answer
    assert verify(store, db, now() - timedelta(days=1)).checked == 0  # nothing is due again


def test_the_digest_is_of_the_data_set_however_it_is_cut(db: Database, store: ArchiveStore) -> None:
    row = shelve(db, store)
    data = store.get(row.archive_key)
    for size in (1, 7, 1000, len(data)):
        assert digest(data[at : at + size] for at in range(0, len(data), size)) == (row.sha256, row.size)


def test_a_pass_is_spread_over_its_days(db: Database, store: ArchiveStore) -> None:
    rows = [shelve(db, store) for _ in range(10)]
    spoil(store, rows[8].archive_key)
    every = timedelta(days=10)
    assert verify_slice(store, db, every).checked == 1  # the pass has only just begun
    _started_ago(db, timedelta(days=5, hours=1))
    assert verify_slice(store, db, every).checked == 4
    assert verify_slice(store, db, every).checked == 0
    _started_ago(db, timedelta(days=10))
    assert verify_slice(store, db, every, most_octets=1).checked == 1
    assert verify_slice(store, db, every).checked == 4
    with db.read() as session:
        whole = session.scalars(select(Verification)).one()
    assert whole.finished_at is not None and (whole.checked, whole.damaged, whole.missing) == (10, 1, 0)
    assert verify_slice(store, db, timedelta(days=20)).checked == 0  # the next pass is not due yet
    assert verify_slice(store, db, every).checked == 1  # and here it is


def test_the_bucket_is_read_and_not_the_cache(db: Database, remote: RemoteStore, s3: S3Server) -> None:
    row = shelve(db, remote)
    remote.outbox.upload()
    key = f"sonomark/{row.archive_key}"
    body = s3.client().get_object(Bucket="house", Key=key)["Body"].read()
    s3.client().put_object(Bucket="house", Key=key, Body=body[:-1] + b"x")
    assert verify(remote, db, now()).damaged == 1
    s3.stop()
    try:
        with pytest.raises(StorageError):  # away is not missing
            verify(remote, db, now())
    finally:
        s3.start()


def test_the_command_says_what_is_ill(db: Database, store: ArchiveStore, house: Settings) -> None:
    rows = [shelve(db, store) for _ in range(3)]
    assert _sonomark(house, "archive", "verify").returncode == 0
    spoil(store, rows[1].archive_key)
    answer = _sonomark(house, "archive", "verify", "--all")
    assert answer.returncode == 1
    assert "3 objects" in answer.stdout and "1 damaged" in answer.stdout
    assert _sonomark(house, "archive", "status").returncode == 1


def _started_ago(db: Database, ago: timedelta) -> None:
    with db.begin() as session:
        session.execute(update(Verification).values(started_at=now() - ago))


def _sonomark(house: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    from service.db import schema

    environment = os.environ | {"SONOMARK_DATA_DIR": str(house.data_dir), "COLUMNS": "200"}
    _stamp(schema.newest())
    command = [sys.executable, "-m", "service.cli", *arguments]
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=root)


def _stamp(revision: str) -> None:
    """The tables were made without Alembic: tell it where they stand."""
    from sqlalchemy import text

    from service.db.session import database

    with database().engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text("DELETE FROM alembic_version"))
        connection.execute(text(f"INSERT INTO alembic_version VALUES ('{revision}')"))


UNREADABLE = """
import sys
from datetime import timedelta
from service.archive.store import ArchiveStore
from service.archive.verify import verify_slice
from service.db.session import database
print(verify_slice(ArchiveStore(sys.argv[1]), database(), timedelta(0)))
"""


def test_a_file_that_the_disk_cannot_read_is_damaged_and_the_pass_goes_on(
    db: Database, store: ArchiveStore, house: Settings
) -> None:
    """A bad sector is what the pass is there to find: once it stopped there, and came no further for ever."""
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    rows = [shelve(db, store) for _ in range(3)]
    bad = store.place(rows[1].archive_key)
    script = UNREADABLE.replace("sys.argv[1]", f"__import__('pathlib').Path({str(store.root)!r})")
    inject = ["strace", "-f", "-o", "/dev/null", "-P", bad, "-e", "trace=read", "-e", "inject=read:error=EIO"]
    done = subprocess.run([*inject, sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    with db.read() as session:
        assert {stored.instance_id: check.condition for stored, check in checks.ill(session)} == {
            rows[1].id: Condition.DAMAGED
        }
        assert checks.health(session).checked == 3
