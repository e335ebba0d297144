"""Accounts by the command line: what is said was done."""

import pytest
from typer.testing import CliRunner

from service.cli.accounts import app, audit_app
from service.db import audit, users
from service.db.session import Database
from service.errors import NotAllowed, NotFound

run = CliRunner().invoke


@pytest.fixture(autouse=True)
def fits(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables made without migrations are good enough here."""
    monkeypatch.setattr("service.cli.accounts.schema.require_usable", lambda _: "")


def test_a_token_of_a_new_account(db: Database) -> None:
    made = run(app, ["token", "bob", "--role", "viewer", "--scope", "read"])
    assert made.exit_code == 0 and "Made the account bob (viewer)." in made.stderr
    assert len(made.stdout.split()) == 1, "the token stands alone"
    again = run(app, ["token", "bob", "--scope", "read"])
    assert "Made the account" not in again.stderr


def test_a_token_that_is_refused_makes_no_account_and_says_of_none(db: Database) -> None:
    refused = run(app, ["token", "bob", "--scope", "all"])
    assert isinstance(refused.exception, NotAllowed) and "store, read, review, admin" in refused.exception.cure
    assert "Made the account" not in refused.output
    with db.read() as session:
        assert users.find_user(session, "bob") is None


def test_a_name_that_nobody_has(db: Database) -> None:
    refused = run(app, ["sign-in", "nobody"]).exception
    assert isinstance(refused, NotFound) and "sonomark user list" in refused.cure


def test_a_trail_that_was_cut_off_says_what_to_do(db: Database) -> None:
    with db.begin() as session:
        audit.record(session, "ann", "study.view", "1.2.3")
    whole = run(audit_app, [])
    assert whole.exit_code == 0 and "chain whole" in whole.output
    cut = run(audit_app, ["--head", "0" * 64])
    assert cut.exit_code == 1 and "cut off" in cut.output and "Keep the database as it is" in cut.output
