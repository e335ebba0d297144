"""Fixtures that more than one room uses."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.session import Database, database
from service.db.tables import Base
from service.settings import Settings, settings


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a house of its own: empty data folder, SQLite, spool broker."""
    monkeypatch.setenv("SONOMARK_DATA_DIR", str(tmp_path / "house"))
    for name in ("DATABASE_URL", "BROKER_URL", "ARCHIVE_URL", "PEERS", "RULEBOOK"):
        monkeypatch.delenv(f"SONOMARK_{name}", raising=False)
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


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real ultrasound data: SONOMARK_TEST_DATA, or ``shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SONOMARK_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no folder of real ultrasound data; set SONOMARK_TEST_DATA")
    return folder
