"""The rule books that are shipped: sound, cited, explained, and true to their own examples."""

import pytest

from service.compliance.check import lint
from service.compliance.examples import failures
from service.compliance.explain import rulebook_in_words
from service.compliance.outcome import Verdict
from service.compliance.rulebook import RULEBOOKS, load, parse

SHIPPED = ["breast-acr", "carotid-svu", "default", "general-aium", "thyroid-aium"]


def test_what_is_shipped() -> None:
    assert sorted(file.stem for file in RULEBOOKS.glob("*.toml")) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
class TestPack:
    def test_has_no_problems(self, name: str) -> None:
        assert lint(name) == []

    def test_judges_its_examples_as_it_says(self, name: str) -> None:
        assert failures(load(name)) == []

    def test_has_examples_of_a_good_and_a_bad_study(self, name: str) -> None:
        verdicts = {example.verdict for example in load(name).examples}
        assert {Verdict.COMPLIANT, Verdict.NON_COMPLIANT} <= verdicts

    def test_cites_its_sources(self, name: str) -> None:
        assert all(requirement.source for requirement in load(name).requirements)

    def test_is_explained(self, name: str) -> None:
        book = load(name)
        assert len(rulebook_in_words(book)) == len(book.requirements)


def test_an_example_that_is_judged_otherwise_is_a_failure() -> None:
    rule = '[[requirement]]\nid = "r"\ntitle = "R"\nexpect = { annotation = "text" }\n'
    example = '[[example]]\nname = "e"\nimages = [{}]\n'
    head = 'name = "t"\nversion = "1"\n'
    (wrong,) = failures(parse(f'{head}{rule}{example}verdict = "compliant"'))
    assert wrong.what.startswith("The verdict is non_compliant, not compliant. Text label is missing on image 1")
    (other,) = failures(parse(f'{head}{rule}{example}verdict = "non_compliant"\nmissing = ["x"]'))
    assert other.what == "r is missing, not x."
    assert failures(parse(f'{head}{rule}{example}verdict = "non_compliant"\nmissing = ["r"]')) == []


def test_waivers_and_dates_are_explained() -> None:
    rule = (
        '[[requirement]]\nid = "r"\ntitle = "R"\nexpect = { annotation = "text" }\ncine = "every"\n'
        "effective_from = 2026-01-01\ngrace_days = 14\n"
    )
    waiver = (
        '[[waiver]]\nrequirement = "r"\nreason = "the printer is broken"\n'
        'until = 2026-03-31\nmatch = { station = "US1" }\n'
    )
    assert rulebook_in_words(parse(f'name = "t"\nversion = "1"\n{rule}{waiver}')) == [
        "r (major): every image must show a text label (in a cine on every sampled frame). "
        "In force from 2026-01-01, for 14 days as information only.",
        "r: waived until 2026-03-31 where station is like US1, because the printer is broken.",
    ]
    head = 'name = "t"\nversion = "1"\nsecond_reader_from = "major"\n'
    assert rulebook_in_words(parse(head + rule))[-1] == (
        "Whoever overrides what is missing and critical or major says why, and a second reader is asked."
    )
