"""Versions of rule books."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from service.compliance.rulebook import parse
from service.db import rulebooks
from service.db.session import Database
from service.errors import Conflict, NotFound, RulebookError


def toml(version: str, kind: str = "text") -> str:
    rule = f'[[requirement]]\nid = "r"\ntitle = "R"\nexpect = {{ annotation = "{kind}" }}\n'
    return f'name = "mine"\nversion = "{version}"\n{rule}'


def test_the_settings_file_judges_until_a_person_activates_another(db: Database) -> None:
    with db.begin() as session:
        assert rulebooks.in_force(session).name == "default"
        assert rulebooks.in_force(session).name == "default"
        assert [row.name for row in rulebooks.versions(session)] == ["default"]
        draft = rulebooks.save(session, toml("1"), "anna")
        assert rulebooks.in_force(session).name == "default"
        rulebooks.activate(session, draft.id, "anna")
        assert rulebooks.in_force(session).label == parse(toml("1")).label


def test_an_activated_version_retires_the_one_before(db: Database) -> None:
    with db.begin() as session:
        one, two = (rulebooks.save(session, toml(version), "anna") for version in "12")
        rulebooks.activate(session, one.id, "anna")
        rulebooks.activate(session, two.id, "anna")
        session.refresh(one)
        assert one.retired_at is not None
        assert rulebooks.in_force(session).version == "2"
        rulebooks.activate(session, one.id, "anna")
        assert rulebooks.in_force(session).version == "1"


def test_the_same_text_is_kept_once(db: Database) -> None:
    with db.begin() as session:
        first = rulebooks.keep(session, parse(toml("1")), "anna")
        assert rulebooks.keep(session, parse(toml("1")), "berta").id == first.id


def test_two_people_edit_at_once(db: Database) -> None:
    with db.begin() as session:
        base = rulebooks.save(session, toml("1"), "anna")
        rulebooks.save(session, toml("2"), "anna", based_on=base.sha256)
        with pytest.raises(Conflict, match="anna saved version 2"):
            rulebooks.save(session, toml("3"), "berta", based_on=base.sha256)


def test_a_version_number_stands_for_one_text(db: Database) -> None:
    with db.begin() as session:
        rulebooks.save(session, toml("1"), "anna")
        with pytest.raises(Conflict, match="with another text"):
            rulebooks.save(session, toml("1", "arrow"), "anna")


def test_what_is_no_rule_book_is_not_kept(db: Database) -> None:
    with db.begin() as session:
        with pytest.raises(RulebookError):
            rulebooks.save(session, "name = 1", "anna")
        assert rulebooks.versions(session) == []
        with pytest.raises(NotFound):
            rulebooks.activate(session, 7, "anna")


@pytest.mark.parametrize("same_number", [False, True])
def test_two_people_save_in_the_same_moment(any_db: Database, same_number: bool) -> None:
    """One of them is told, whichever comes second: nothing is overwritten, and no number stands for two texts."""
    with any_db.begin() as session:
        base = rulebooks.save(session, toml("1"), "anna").sha256
    together = Barrier(2)

    def save(kind: str) -> str:
        together.wait()
        try:
            with any_db.begin() as session:
                text = toml("2" if same_number else f"2-{kind}", kind)
                return rulebooks.save(session, text, kind, based_on=None if same_number else base).created_by
        except Conflict:
            return "told"

    with ThreadPoolExecutor(2) as people:
        answers = list(people.map(save, ("arrow", "caliper")))
    assert answers.count("told") == 1
    with any_db.read() as session:
        assert len(rulebooks.versions(session)) == 2


def test_two_people_activate_in_the_same_moment(any_db: Database) -> None:
    with any_db.begin() as session:
        numbers = [rulebooks.save(session, toml(version), "anna").id for version in "12"]
    together = Barrier(2)

    def activate(number: int) -> None:
        together.wait()
        with any_db.begin() as session:
            rulebooks.activate(session, number, "anna")

    with ThreadPoolExecutor(2) as people:
        list(people.map(activate, numbers))
    with any_db.read() as session:
        in_force = [row.id for row in rulebooks.versions(session) if row.activated_at and not row.retired_at]
    assert len(in_force) == 1


def test_what_contradicts_itself_is_a_draft_and_never_in_force(db: Database) -> None:
    with db.begin() as session:
        draft = rulebooks.save(session, toml("1").replace('text" }', 'text", without = "text" }'), "anna")
        with pytest.raises(RulebookError, match="asks for text and bans it"):
            rulebooks.activate(session, draft.id, "anna")
        assert rulebooks.in_force(session).name == "default"
