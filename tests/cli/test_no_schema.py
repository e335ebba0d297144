"""Commands that read the database, on a machine where `sonomark migrate` has not run yet."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.db.session import database
from service.errors import SchemaError
from service.settings import Settings, settings

COMMANDS = [
    "report",
    "corrections FOLDER",
    "selftest",
    "backfill PACS@127.0.0.1:1 --from 2026-01-01 --to 2026-01-02",
    "user token ann",
    "user sign-in ann",
    "user reset-second-factor ann",
    "user list",
    "audit verify",
    "rules list",
    "rules save default",
    "rules activate 1 --reason tested",
    "rules reevaluate",
    "archive verify",
    "archive status",
    "archive reconcile",
    "retention retire",
    "retention due",
    "retention run",
    "retention hold 1.2 --reason audit",
    "retention lift 1.2",
    "retention holds",
]


@pytest.fixture(params=["sqlite", "postgresql"])
def without_tables(request: pytest.FixtureRequest, house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of each kind that nobody has migrated."""
    if request.param == "postgresql":
        make: Callable[[str], str] = request.getfixturevalue("new_database")
        monkeypatch.setenv("SONOMARK_DATABASE_URL", make("no_schema"))
        settings.cache_clear()
        database.cache_clear()


@pytest.mark.usefixtures("without_tables")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_that_the_schema_is_to_be_made(command: str, tmp_path: Path) -> None:
    words = command.replace("FOLDER", str(tmp_path / "marks")).split()
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, SchemaError), refused.exception
    assert "`sonomark migrate`" in refused.exception.cure
    assert not (tmp_path / "marks").exists(), "nothing is begun"


def test_asking_makes_no_database(house: Settings) -> None:
    refused = CliRunner().invoke(app, ["user", "list"])
    assert "no database at" in str(refused.exception) and "SONOMARK_DATA_DIR" in str(refused.exception)
    assert not list(house.data_dir.iterdir())


def test_after_migrate_the_file_is_whole_by_itself(tmp_path: Path) -> None:
    """Nothing of the schema is left in SQLite's log: the file may be copied."""
    environment = os.environ | {"SONOMARK_DATA_DIR": str(tmp_path), "SONOMARK_DATABASE_URL": ""}
    subprocess.run([sys.executable, "-m", "service.cli", "migrate"], env=environment, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir() if "sqlite" in path.name] == ["sonomark.sqlite"]
