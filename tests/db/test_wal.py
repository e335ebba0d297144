"""The log that is written beforehand: SQLite reads what is in it, and nothing more."""

import errno
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from service.db import wal
from service.db.session import Database
from service.errors import DatabaseAway


def _numbers(path: Path) -> list[int]:
    reader = sqlite3.connect(path)
    try:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return [number for (number,) in reader.execute("SELECT number FROM numbers ORDER BY number")]
    finally:
        reader.close()


def test_commits_before_and_after_are_found_by_recovery(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/one.sqlite")
    with database.cursor() as cursor:
        cursor.raw.execute("CREATE TABLE numbers (number INTEGER)")
        cursor.raw.execute("INSERT INTO numbers VALUES (1)")
    assert wal.prepare_log(database)
    log = tmp_path / "one.sqlite-wal"
    length = log.stat().st_size
    assert length >= wal.LOG_BYTES
    with database.cursor() as cursor:
        cursor.raw.execute("INSERT INTO numbers VALUES (2)")
    assert wal.prepare_log(database)
    assert log.stat().st_size == length
    # What a crash leaves behind is these two files: the copy is recovered from its log.
    for suffix in ("", "-wal"):
        shutil.copyfile(tmp_path / f"one.sqlite{suffix}", tmp_path / f"crashed.sqlite{suffix}")
    assert _numbers(tmp_path / "crashed.sqlite") == [1, 2]
    database.checkpoint()
    with database.cursor() as cursor:
        cursor.raw.execute("INSERT INTO numbers VALUES (3)")
    assert log.stat().st_size == length, "a log that begins anew is not shortened"
    database.dispose()
    assert _numbers(tmp_path / "one.sqlite") == [1, 2, 3]


def test_a_small_disk_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "LEAST_FREE", 1 << 62)
    database = Database(f"sqlite:///{tmp_path}/one.sqlite")
    assert not wal.prepare_log(database)
    assert (tmp_path / "one.sqlite-wal").stat().st_size < wal.LOG_BYTES
    database.dispose()


def test_others_are_left_alone() -> None:
    assert not wal.prepare_log(Database("sqlite://"))


def test_a_disk_that_fails_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(f"sqlite:///{tmp_path}/one.sqlite")

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DatabaseAway):
        wal.prepare_log(database)
    with pytest.raises(DatabaseAway), database.cursor():
        pass
    database.dispose()
