"""Reading a rule book: every mistake is named by file, line and field, with its cure."""

from datetime import date
from pathlib import Path

import pytest

from service.compliance import rulebook
from service.compliance.evaluate import judge_instance, judge_study
from service.compliance.facts import KINDS, FrameFacts, InstanceFacts, StudyFacts, words_of
from service.compliance.outcome import Severity, Verdict
from service.compliance.pattern import BadPattern, Patterns
from service.compliance.positions import line_of, lines_of
from service.errors import RulebookError

WAIVER = '[[waiver]]\nreason = "x"\n'
HEAD = 'name = "test"\nversion = "1.0"\n'
RULE = '[[requirement]]\nid = "one"\ntitle = "One"\n'


def complaints(text: str) -> list[str]:
    book, problems = rulebook.read(text)
    assert book is None
    return [problem.against("book.toml") for problem in problems]


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (
            'expect = { annotation = "calliper" }',
            "book.toml:6: requirement[0].expect.annotation: Unknown value 'calliper'. Did you mean 'caliper'?",
        ),
        (
            'expect = { annotation = "caliper" }\nseverty = "minor"',
            "book.toml:7: requirement[0].severty: Unknown field 'severty'. Did you mean 'severity'?",
        ),
        (
            'expect = { annotation = "caliper" }\nseverity = "huge"',
            "book.toml:7: requirement[0].severity: Unknown value 'huge'. Write one of critical, major, minor, info.",
        ),
        (
            'expect = { annotation = "caliper" }\n[requirement.applies_to]\nexam = "breast("',
            "book.toml:8: requirement[0].applies_to[0].exam: Bad regular expression: missing )",
        ),
        (
            'expect = { annotation = "caliper" }\napplies_to = { exam = "(?!left)" }',
            "say it with 'unless' instead",
        ),
        ("at_least = 1", "book.toml:3: requirement[0]: Exactly one of 'expect', 'agree' and 'pair'"),
        ('expect = { annotation = "text" }\nat_least = 0', "book.toml:7: requirement[0].at_least: Input should be"),
        ('expect = { annotation = "text" }\nat_least = 1\nat_most = 3', "'at_least' and 'at_most' exclude each other"),
        ("expect = { count = 2 }", "requirement[0].expect: Nothing is expected"),
        ('expect = { text = "a", count = 2 }', "'count' speaks of an annotation"),
        ('expect = { annotation = "text" }\napplies_to = {}', "An empty condition matches nothing and everything"),
        (
            f'expect = {{ annotation = "text" }}\n{WAIVER}requirement = "one"\nsince = 2026-02-01\nuntil = 2026-01-01',
            "so it never holds",
        ),
        (
            'expect = { annotation = "text" }\neffective_from = 2026-02-01\neffective_until = 2026-01-01',
            "so it is never in force",
        ),
        ('expect = { annotation = "text" }\ngrace_days = 3', "'effective_from', which is missing"),
        (
            'expect = { annotation = "text" }\napplies_to = { min_age = 20, max_age = 10 }',
            "No patient is at least 20 and at most 10",
        ),
    ],
)
def test_mistakes_in_a_requirement(rule: str, complaint: str) -> None:
    found = complaints(HEAD + RULE + rule)
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD, "'requirement' is missing"),
        (f"{HEAD}requirement = []", "judges nothing"),
        (HEAD + 2 * (RULE + 'expect = { annotation = "text" }\n'), "'one' stands for several requirements"),
        (f"{HEAD}{RULE}expect = ", "book.toml:6: This is not TOML"),
        (
            f'{HEAD}{RULE}expect = {{ annotation = "text" }}\n{WAIVER}requirement = "two"\nuntil = 2026-01-01',
            "'two', which is no requirement",
        ),
        (
            f'{HEAD}{RULE}expect = {{ annotation = "text" }}\n[[waiver]]\nrequirement = "one"\nreason = "x"',
            "book.toml:7: waiver[0].until: 'until' is missing. Add it.",
        ),
        (f'{HEAD}sha256 = "0"\n{RULE}expect = {{ annotation = "text" }}', "Unknown field 'sha256'"),
        (
            HEAD + RULE.replace('"one"', '"image-assessed"') + 'expect = { annotation = "text" }',
            "choose another id",
        ),
        (
            HEAD.replace('"test"', '"Te st"') + RULE + 'expect = { annotation = "text" }',
            "book.toml:1: name: 'Te st' is",
        ),
        (
            f'second_reader_from = "grave"\n{HEAD}{RULE}expect = {{ annotation = "text" }}',
            "book.toml:1: second_reader_from: Unknown value 'grave'. Write one of critical, major, minor.",
        ),
        (
            f'second_reader_from = "info"\n{HEAD}{RULE}expect = {{ annotation = "text" }}',
            "second_reader_from: Unknown value 'info'",
        ),
    ],
)
def test_mistakes_in_a_rule_book(text: str, complaint: str) -> None:
    found = complaints(text)
    assert any(complaint in line for line in found), found


def test_the_error_names_the_file_and_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'{HEAD}{RULE}expect = {{ annotation = "x" }}\nseverty = 1\n')
    with pytest.raises(RulebookError) as caught:
        rulebook.load(file)
    assert str(caught.value).count("mine.toml:") == 2
    assert "sonomark rules check" in caught.value.cure


def test_a_rule_book_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(RulebookError, match="cannot be read"):
        rulebook.load("no-such-book")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RulebookError, match="not UTF-8"):
        rulebook.load(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("least", "asked"),
    [(None, ""), ("critical", "critical"), ("major", "critical major"), ("minor", "critical major minor")],
)
def test_from_which_severity_an_override_is_read_twice(least: str | None, asked: str) -> None:
    first = f'second_reader_from = "{least}"\n' if least else ""
    book = rulebook.parse(f'{first}{HEAD}{RULE}expect = {{ annotation = "text" }}')
    assert [each.value for each in Severity if book.asks_second_reader(each)] == asked.split()


def test_the_label_tells_two_texts_of_one_version_apart() -> None:
    one, other = (rulebook.parse(f'{HEAD}{RULE}expect = {{ annotation = "{kind}" }}') for kind in ("text", "arrow"))
    assert one.label.startswith("test@1.0+")
    assert one.label != other.label


def test_everything_a_rule_can_say_is_read() -> None:
    text = f"""{HEAD}
[[requirement]]
id = "all"
title = "All"
severity = "critical"
applies_to = [{{ exam = ["a", "b"] }}, {{ station = "x", min_age = 18 }}]
unless = {{ view = "z" }}
at_least = 2
cine = "most"
effective_from = 2026-01-01
effective_until = 2026-12-31
grace_days = 30
expect = {{ any_of = [{{ annotation = "caliper", count = 4, in_region = "tissue" }}, {{ text = "none" }}] }}
each_of = [{{ name = "left", match = {{ laterality = "L" }} }}, {{ name = "right", expect = {{ text = "R" }} }}]
  [[requirement.exemptions]]
  match = {{ station = "old" }}
  reason = "no calipers"
[[waiver]]
requirement = "all"
reason = "broken"
until = 2026-02-01
"""
    requirement = rulebook.parse(text).requirements[0]
    assert requirement.severity is Severity.CRITICAL
    assert requirement.limits == (2, None)
    assert requirement.effective_until == date(2026, 12, 31)
    assert requirement.kinds == ("caliper", "text")
    assert requirement.of_study


class TestPatterns:
    def test_a_pattern_that_explodes_elsewhere_is_quick_here(self) -> None:
        """An engine that backtracks would never come back."""
        assert not Patterns("(a+)+$").found_in("a" * 1000 + "!")

    def test_a_repetition_that_would_fill_the_memory_is_refused(self) -> None:
        with pytest.raises(BadPattern):
            Patterns("((a{1000}){1000}){1000}")

    @pytest.mark.parametrize("text", ["US BREAST", "us_breast_lt", "US^Breast", "Breast"])
    def test_scanners_spelling_does_not_matter(self, text: str) -> None:
        assert Patterns(r"\bbreast\b").found_in(text)


class TestPositions:
    TEXT = '''# a comment = 1
name = "x"
list = [
  "a = 1",
  "b",
]
[[requirement]] # first
id = "a"
text = """
id = "not a key"
"""
  [requirement.applies_to]
  exam = "y"
[[requirement]]
"quoted key" = 1
  [[requirement.exemptions]]
  reason = "z"
  [[requirement.exemptions]]
  reason = "z"
'''

    @pytest.mark.parametrize(
        ("path", "line"),
        [
            (("name",), 2),
            (("list",), 3),
            (("list", 1), 3),
            (("requirement", 0), 7),
            (("requirement", 0, "id"), 8),
            (("requirement", 0, "text"), 9),
            (("requirement", 0, "applies_to", "exam"), 13),
            (("requirement", 1, "quoted key"), 15),
            (("requirement", 1, "exemptions", 1, "reason"), 19),
            (("requirement", 1, "nowhere"), 14),
            (("nowhere",), 1),
        ],
    )
    def test_lines(self, path: tuple[str | int, ...], line: int) -> None:
        assert line_of(lines_of(self.TEXT), path) == line


class TestDefault:
    """The rule book that judges when nobody chose another, on headers as scanners write them."""

    BOOK = rulebook.load("default")

    def verdict(self, found: tuple[str, ...] = (), **words: str) -> Verdict:
        return judge_study(self.BOOK, StudyFacts("1", (self.image(found, **words),))).verdict

    def image(self, found: tuple[str, ...], **words: str) -> InstanceFacts:
        scores = {kind: 1.0 if kind in found else 0.0 for kind in KINDS}
        return InstanceFacts("1.1", 1, words_of({}, **words), frames=(FrameFacts(1, scores),))

    @pytest.mark.parametrize(
        "words",
        [
            {"body_part": "BREAST"},
            {"study_description": "US BREAST LT LIMITED"},
            {"study_description": "US MAMMA BEIDSEITS"},
            {"study_description": "ECOGRAFIA DE MAMA"},
            {"series_description": "Brust links"},
            {"procedure": "US_BREAST_BILATERAL"},
            {"body_part": "THYROID"},
            {"study_description": "Thyroid"},
            {"study_description": "Echographie thyroïdienne"},
            {"study_description": "Schilddrüse"},
            {"study_description": "ECO TIROIDES"},
            {"protocol": "Thyroid^Routine"},
        ],
    )
    def test_breast_and_thyroid_need_a_body_marker(self, words: dict[str, str]) -> None:
        assert self.verdict((), **words) is Verdict.NON_COMPLIANT
        assert self.verdict(("body_marker",), **words) is Verdict.COMPLIANT

    @pytest.mark.parametrize(
        "words",
        [
            {"series_description": "Measurements"},
            {"protocol": "CALIPER"},
            {"study_description": "US LESION LEFT ARM"},
            {"procedure": "US ABDOMEN AAA SCREENING"},
        ],
    )
    def test_a_measurement_needs_calipers(self, words: dict[str, str]) -> None:
        assert self.verdict((), **words) is Verdict.NON_COMPLIANT
        assert self.verdict(("caliper",), **words) is Verdict.COMPLIANT

    @pytest.mark.parametrize(
        "words",
        [
            {"study_description": "US CAROTID DOPPLER BILATERAL"},
            {"study_description": "Venous duplex"},
            {"procedure": "US SCROTUM COLOR FLOW"},
            {"series_description": "Color Doppler"},
        ],
    )
    def test_doppler_needs_a_colour_box(self, words: dict[str, str]) -> None:
        assert self.verdict((), **words) is Verdict.NON_COMPLIANT
        assert self.verdict(("color_box",), **words) is Verdict.COMPLIANT

    @pytest.mark.parametrize(
        "words",
        [
            {},
            {"study_description": "US ABDOMEN COMPLETE"},
            {"study_description": "Echocardiogram", "series_description": "Transesophageal Echocardiogram"},
            {"study_description": "THYMUS"},
            {"image_type": "ORIGINAL"},
        ],
    )
    def test_nothing_is_asked_of_other_studies(self, words: dict[str, str]) -> None:
        assert self.verdict((), **words) is Verdict.NOT_APPLICABLE

    def test_an_image_by_itself(self) -> None:
        image = self.image((), study_description="US BREAST")
        assert judge_instance(self.BOOK, image).verdict is Verdict.NON_COMPLIANT


def nested(depth: int) -> str:
    inner = '{ annotation = "text" }'
    for _ in range(depth - 1):
        inner = f"{{ any_of = [{inner}] }}"
    return f'name = "t"\nversion = "1"\n[[requirement]]\nid = "r"\ntitle = "R"\nexpect = {inner}\n'


@pytest.mark.parametrize("text", [nested(9), nested(60), nested(5000), f"name = {'[' * 5000}{']' * 5000}"])
def test_what_lies_too_deep_is_a_problem_and_no_crash(text: str) -> None:
    found, problems = rulebook.read(text)
    assert found is None and len(problems) == 1
    assert "within each other" in problems[0].message


def test_as_deep_as_people_write_is_read() -> None:
    assert rulebook.parse(nested(8)).requirements[0].kinds == ("text",)
