"""What a worker asks of the house before it reads."""

import pytest

from service.analyse import tasks
from service.db import rulebooks
from service.db.session import Database, database
from service.settings import settings

WORDS = """
name = "words"
version = "1"
[[requirement]]
id = "side"
title = "Side"
expect = { text = "left|right" }
"""
MARKS = WORDS.replace("words", "marks").replace('text = "left|right"', 'annotation = "caliper"')


@pytest.mark.parametrize(("toml", "asked"), [(WORDS, True), (MARKS, False)])
def test_a_database_that_is_away_changes_no_answer(
    db: Database, monkeypatch: pytest.MonkeyPatch, toml: str, asked: bool
) -> None:
    with db.begin() as session:
        rulebooks.activate(session, rulebooks.save(session, toml, "DOE").id, "DOE")
    assert tasks._text_is_asked_for() is asked
    take_away(monkeypatch)
    assert tasks._text_is_asked_for() is asked


def test_before_the_first_answer_text_is_read(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading too much costs time; what was not read cannot be judged later either."""
    take_away(monkeypatch)
    assert tasks._text_is_asked_for()


@pytest.fixture(autouse=True)
def never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_text_was_asked_for", True)


def take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing listens where the database is said to be."""
    database().dispose()
    monkeypatch.setenv("SONOMARK_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    settings.cache_clear()
    database.cache_clear()
