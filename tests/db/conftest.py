"""A database as the settings name it, which only migrations have touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.session import Database, database
from service.settings import settings


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database without any table, on each of the two."""
    monkeypatch.setenv("SONOMARK_DATA_DIR", str(tmp_path))
    lite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/empty.sqlite" if lite else request.getfixturevalue("new_database")("empty")
    monkeypatch.setenv("SONOMARK_DATABASE_URL", url)
    settings.cache_clear()
    database.cache_clear()
    yield database()
    database().dispose()
    settings.cache_clear()
    database.cache_clear()
