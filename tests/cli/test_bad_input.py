"""What cannot be is refused in words, with a status that says so, and never with a traceback."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.db.session import Database
from service.errors import ConfigurationError, DatabaseAway, NotFound
from service.settings import Settings, settings
from tests.review import ward

DAYS_AT_THE_END = ["--from", "0001-01-01", "--to", "9999-12-31"]
BACKWARDS = ["--from", "2026-03-31", "--to", "2026-03-01"]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("name", ["there/is/none.csv", "folder.csv", "file.txt/under.csv"])
def test_a_report_that_cannot_be_written(db: Database, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.txt").touch()
    refused = run("report", "--out", str(tmp_path / name)).exception
    assert isinstance(refused, ConfigurationError)
    assert name in refused.what and "another place" in refused.cure


def test_corrections_that_cannot_be_written(db: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/under"):
        refused = run("corrections", str(tmp_path / name)).exception
        assert isinstance(refused, ConfigurationError) and str(tmp_path / name) in refused.what


@pytest.mark.parametrize("command", [["report"], ["rules", "reevaluate"]])
def test_days_at_the_ends_of_the_calendar(db: Database, command: list[str]) -> None:
    assert run(*command, *DAYS_AT_THE_END).exit_code == 0
    assert run(*command, "--to", "0001-01-02").exit_code == 0


@pytest.mark.parametrize("moment", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-11:00"])
def test_moments_at_the_ends_of_the_calendar(db: Database, moment: str) -> None:
    assert run("report", "--as-of", moment).exit_code == 0


@pytest.mark.parametrize("command", [["report"], ["rules", "reevaluate"], ["backfill", "PACS@127.0.0.1:1"]])
def test_days_that_end_before_they_begin(db: Database, command: list[str]) -> None:
    refused = run(*command, *BACKWARDS).exception
    assert isinstance(refused, ConfigurationError) and "Exchange" in refused.cure


@pytest.mark.parametrize(
    "words",
    [
        ["user", "token", "ann", "--days", "99999999"],
        ["rules", "activate", "99999999999999999999", "--reason", "tested"],
        ["rules", "activate", "1", "--reason", " "],
        ["rules", "reevaluate", "--last", "99999999999999999999"],
    ],
)
def test_what_an_option_cannot_be(db: Database, words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_a_legal_hold_says_why(db: Database) -> None:
    uid = ward.admit(db, 1)
    assert run("retention", "hold", uid, "--reason", "").exit_code == 2
    assert run("retention", "hold", uid, "--reason", "lawsuit").exit_code == 0


def test_a_version_that_is_not_there(db: Database) -> None:
    refused = run("rules", "activate", "99", "--reason", "tested").exception
    assert isinstance(refused, NotFound) and "rules list" in refused.cure


def test_a_policy_that_is_no_text(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_bytes(b"\xff\xfe")
    for words in (["check"], ["activate", "--yes"]):
        refused = run("retention", *words, str(file)).exception
        assert isinstance(refused, ConfigurationError) and str(file) in refused.what


@pytest.mark.parametrize("command", ["migrate", "up"])
def test_a_data_folder_that_cannot_be_made(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SONOMARK_DATA_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("SONOMARK_HTTP_PORT", "1")
    settings.cache_clear()
    refused = run(command).exception
    assert isinstance(refused, ConfigurationError) and "SONOMARK_DATA_DIR" in refused.cure


@pytest.mark.parametrize("words", [["assess", "FOLDER"], ["send", "FOLDER", "PACS@127.0.0.1:1"]])
def test_a_folder_without_files_is_no_success(house: Settings, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    refused = run(*(word.replace("FOLDER", str(tmp_path / "empty")) for word in words))
    assert isinstance(refused.exception, ConfigurationError) and str(tmp_path / "empty") in refused.exception.what


def test_a_file_that_is_no_database(house: Settings) -> None:
    (house.data_dir / "sonomark.sqlite").write_bytes(b"no database" * 1000)
    for words in (["migrate"], ["user", "list"]):
        refused = run(*words).exception
        assert isinstance(refused, DatabaseAway) and "DATA_DIR" in refused.cure and "password" not in refused.cure


@pytest.mark.parametrize("words", [["PACS@127.0.0.1:1", "--aet", "X" * 17], ["Ä@127.0.0.1:1"], [" @127.0.0.1:1"]])
def test_an_ae_title_that_is_none(house: Settings, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "any.dcm").touch()
    assert isinstance(run("send", str(tmp_path / "any.dcm"), *words).exception, ConfigurationError)
