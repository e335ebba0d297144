"""The commands that examine rule books."""

from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from service.cli.rules import app
from service.db import audit, rulebooks
from service.db.session import Database
from service.db.tables import Study, Verdict
from service.errors import Conflict, NotFound, RulebookError
from tests.jobs.test_reevaluate import fill

RULE = 'name = "mine"\nversion = "1"\n[[requirement]]\nid = "r"\ntitle = "R"\nexpect = { annotation = "text" }\n'
EXAMPLE = '[[example]]\nname = "an image without text"\nimages = [{}]\nverdict = '
run = CliRunner().invoke


def test_check(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    assert run(app, ["check", "default"]).exit_code == 0
    file.write_text(RULE.replace('"text"', '"txt"'))
    found = run(app, ["check", str(file)])
    assert found.exit_code == 1
    assert "mine.toml:6: requirement[0].expect.annotation: Unknown value 'txt'. Did you mean 'text'?" in found.output
    file.write_text(f"{RULE}effective_until = 2020-01-01\n")
    found = run(app, ["check", str(file)])
    assert found.exit_code == 0
    assert "not been in force since 2020-01-01" in found.output


def test_a_file_is_one_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ward.txt").write_text(RULE)
    (tmp_path / "default").write_text("no rule book")
    assert run(app, ["check", "ward.txt"]).exit_code == 0
    assert run(app, ["check", "default"]).exit_code == 0, "a shipped name is that of the shipped one"
    refused = run(app, ["check", "brest-acr"]).exception
    assert isinstance(refused, RulebookError) and "breast-acr, carotid-svu, default" in refused.cure


def test_explain() -> None:
    found = run(app, ["explain", "default"])
    assert "breast-body-marker (major): every image where exam is like" in found.output


def test_examples(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'{RULE}{EXAMPLE}"non_compliant"\n')
    assert run(app, ["test", str(file)]).exit_code == 0
    file.write_text(f'{RULE}{EXAMPLE}"compliant"\n')
    found = run(app, ["test", str(file)])
    assert found.exit_code == 1
    assert "an image without text: The verdict is non_compliant, not compliant." in found.output


DRAFT = (
    'name = "mine"\nversion = "2"\n[[requirement]]\nid = "calipers"\ntitle = "Calipers"\n'
    'expect = { annotation = "caliper" }\napplies_to = { exam = "breast" }\n'
)


def test_what_if_from_the_command_line_writes_nothing(db: Database, tmp_path: Path) -> None:
    (tmp_path / "draft.toml").write_text(DRAFT)
    with db.begin() as session:
        fill(session, 4)
    done = run(app, ["reevaluate", "--what-if", str(tmp_path / "draft.toml")])
    assert "2 studies: compliant → non_compliant" in done.output and "nothing written" in done.output
    with db.read() as session:
        assert set(session.scalars(select(Study.verdict))) == {Verdict.COMPLIANT}


def test_a_reevaluation_of_the_last_few(db: Database) -> None:
    with db.begin() as session:
        fill(session, 4)
    assert "3 studies judged by default" in run(app, ["reevaluate", "--last", "3"]).output


def test_a_reevaluation_is_in_the_audit_trail(db: Database, tmp_path: Path) -> None:
    """It rewrites verdicts, by whatever door it is asked for."""
    (tmp_path / "draft.toml").write_text(DRAFT)
    with db.begin() as session:
        fill(session, 1)
    run(app, ["reevaluate"])
    run(app, ["reevaluate", "--what-if", str(tmp_path / "draft.toml")])
    with db.read() as session:
        asked = audit.search(session, action="reevaluation.ask")
        assert {(each.subject, each.detail["records"]) for each in asked} == {("1", True), ("2", False)}


def test_kept_put_in_force_and_listed(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(RULE)
    assert "kept as number 1, digest " in run(app, ["save", str(file)]).output
    assert run(app, ["activate", "1", "--reason", "agreed"]).output == "mine 1 is in force.\n"
    with db.read() as session:
        digest = rulebooks.versions(session)[0].sha256
        assert rulebooks.in_force_now(session).sha256 == digest
        assert {entry.action for entry in audit.search(session)} == {"rulebook.save", "rulebook.activate"}
    listed = run(app, ["list"], env={"COLUMNS": "120"}).output
    assert digest[:12] in listed and "in force" in listed


def test_a_text_that_somebody_overtook_is_not_kept(db: Database, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    for version in "12":
        file.write_text(RULE.replace('version = "1"', f'version = "{version}"'))
        run(app, ["save", str(file)])
    with db.read() as session:
        first = rulebooks.versions(session)[-1].sha256[:12]
    file.write_text(RULE.replace('version = "1"', 'version = "3"'))
    assert isinstance(run(app, ["save", str(file), "--based-on", first]).exception, Conflict)
    assert isinstance(run(app, ["save", str(file), "--based-on", "none"]).exception, NotFound)
