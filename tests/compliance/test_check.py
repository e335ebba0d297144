"""The linter: rules that can never hold, and rules that are hardly meant."""

from datetime import date
from pathlib import Path

import pytest

from service.compliance.check import errors_among, lint, lint_text
from service.errors import RulebookError

HEAD = 'name = "test"\nversion = "1"\n'
EXEMPT = '[[requirement.exemptions]]\nreason = "r"\n'
TEXT = 'expect = { annotation = "text" }'


def rule(fields: str, name: str = "one") -> str:
    return f'[[requirement]]\nid = "{name}"\ntitle = "A title"\n{fields}\n'


def said(*rules: str, today: date | None = None) -> list[str]:
    return [problem.against("f") for problem in lint_text(HEAD + "".join(rules), today)]


def test_a_sound_rule_book_has_no_problems() -> None:
    assert said(rule(f'{TEXT}\napplies_to = {{ exam = "breast", laterality = "^L" }}')) == []


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            f'{TEXT}\napplies_to = {{ exam = "a" }}\nunless = {{ exam = "a" }}',
            "f:8: requirement[0].unless: It takes",
        ),
        (
            f'{TEXT}\napplies_to = {{ view = "a" }}\n{EXEMPT}match = {{ view = "a" }}',
            "f:8: requirement[0].exemptions: An exemption takes out all",
        ),
        (
            f'{TEXT}\napplies_to = {{ exam = "a", laterality = "^L" }}\nunless = {{ exam = ["a", "b"] }}',
            "requirement[0].unless: It takes out all",
        ),
        (
            f'{TEXT}\napplies_to = {{ exam = "a", min_age = 18 }}\nunless = {{ exam = ".", min_age = 12 }}',
            "requirement[0].unless: It takes out all",
        ),
        (
            'expect = { annotation = "text", without = "text" }',
            "f:6: requirement[0].expect: It asks for text and",
        ),
        ('expect = { annotation = "text", none_of = [{ annotation = "text" }] }', "asks for text and bans it"),
        ('when = { annotation = "arrow" }\nexpect = { without = "arrow" }', "bans the arrow that 'when' asks for"),
        ('agree = [{ annotation = "text" }, { annotation = "text" }]', "always agree"),
        ('pair = { one = { annotation = "text" }, other = { annotation = "text" } }', "are the same"),
        (
            f'{TEXT}\nat_most = 0\neach_of = [{{ name = "l", match = {{ laterality = "L" }} }}]',
            "None of them may be there",
        ),
        (
            f'{TEXT}\napplies_to = {{ series_description = "us_breast" }}',
            "f:7: requirement[0].applies_to[0].series",
        ),
        (f'{TEXT}\napplies_to = {{ laterality = "dexter" }}', "none of the values that laterality can have"),
        (f'{TEXT}\nunless = {{ modality = "^MR$" }}', "none of the values that modality can have"),
        (f'{TEXT}\napplies_to = {{ exam = "breast|" }}', "It is found in every text"),
        (
            'expect = { any_of = [{ header = { patient_sex = "W" } }] }',
            "none of the values that patient_sex can have",
        ),
        (f'{TEXT}\napplies_to = {{ pregnancy = "^yes$" }}', "These are none, possible, definite, unknown"),
    ],
)
def test_one_rule(fields: str, complaint: str) -> None:
    found = said(rule(fields))
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    ("one", "two", "complaint"),
    [
        (TEXT, TEXT, "f:7: requirement[1]: It asks the same as 'one'"),
        (TEXT, 'expect = { without = "text" }', "no image can meet both"),
        (f"{TEXT}\nat_least = 3", f"{TEXT}\nat_most = 2", "no number of images meets both"),
        (f"{TEXT}\nexactly = 1", f"{TEXT}\nexactly = 2", "no number of images meets both"),
        (
            f'{TEXT}\napplies_to = [{{ exam = "a" }}, {{ exam = "b" }}]',
            'expect = { without = "text" }\napplies_to = { exam = "b" }',
            "no image can meet both",
        ),
    ],
)
def test_two_rules(one: str, two: str, complaint: str) -> None:
    found = said(rule(one), rule(two, "two"))
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (f'{TEXT}\napplies_to = {{ exam = "a" }}', 'expect = { without = "text" }\napplies_to = { exam = "b" }'),
        (f"{TEXT}\nat_least = 1", f"{TEXT}\nat_most = 2"),
        (f"{TEXT}\neffective_until = 2026-01-01", 'expect = { without = "text" }\neffective_from = 2026-01-02'),
        (
            f'{TEXT}\napplies_to = {{ exam = "a", min_age = 18 }}\nunless = {{ exam = "a", min_age = 65 }}',
            f'{TEXT}\napplies_to = {{ exam = "a" }}\nunless = {{ exam = "a", image = "still" }}',
        ),
        (f'{TEXT}\nunless = {{ exam = "b" }}', 'expect = { without = "text" }\napplies_to = { exam = "b" }'),
    ],
)
def test_rules_that_get_along(one: str, two: str) -> None:
    assert said(rule(one), rule(two, "two")) == []


def test_dates_are_looked_at_only_when_a_day_is_given() -> None:
    waiver = '[[waiver]]\nrequirement = "one"\nreason = "r"\nuntil = 2026-01-31\n'
    rules = (rule(f"{TEXT}\neffective_until = 2026-01-31"), waiver)
    assert said(*rules) == []
    assert said(*rules, today=date(2026, 1, 31)) == []
    assert len(said(*rules, today=date(2026, 2, 1))) == 2


def test_what_is_odd_is_no_error() -> None:
    problems = lint_text(HEAD + rule(TEXT) + rule(TEXT, "two"))
    assert problems and errors_among(problems) == []
    (problem,) = lint_text(f'second_reader_from = "critical"\n{HEAD}' + rule(TEXT))
    assert "No requirement is critical" in problem.message and problem.line == 1 and not problem.is_error


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + rule('expect = { annotation = "x" }'))
    assert [problem.line for problem in lint(file)] == [6]
    with pytest.raises(RulebookError):
        lint(tmp_path / "none.toml")
