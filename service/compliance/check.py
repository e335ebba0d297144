"""The linter of rule books: what cannot be read, what can never hold, and what is hardly meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path

from service.compliance.conditions import Expectation, Match
from service.compliance.pattern import Patterns
from service.compliance.positions import line_of, lines_of
from service.compliance.problems import Problem, dotted
from service.compliance.rulebook import Requirement, Rulebook, find, load, read

# Values that DICOM defines for a field; a pattern that finds none of them finds nothing.
_DEFINED = {
    "laterality": ("L", "R", "B", "U", "LEFT", "RIGHT", "BOTH"),  # PS3.3 C.7.3.1, and what scanners write
    "patient_sex": ("M", "F", "O"),  # PS3.3 C.7.1.1
    "pregnancy": ("none", "possible", "definite", "unknown"),  # PS3.3 C.2.4, as dicom/header.py calls its values
    "modality": ("US", "IVUS", "OT", "SC", "SR", "PR", "KO"),  # PS3.3 C.7.3.1.1.1
}

Found = tuple[tuple[str | int, ...], str, str, bool]


def lint(name_or_path: str | Path, today: date | None = None) -> list[Problem]:
    """Everything that is wrong or odd, in the order of the file; without ``today`` nothing is said about dates.

    Raises RulebookError only when the file itself cannot be read.
    """
    try:
        text = find(name_or_path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        load(name_or_path)  # says what is wrong with the file
        raise
    return lint_text(text, today)


def lint_text(text: str, today: date | None = None) -> list[Problem]:
    """The same for a rule book that is being written."""
    rulebook, problems = read(text)
    if rulebook is None:
        return list(problems)
    lines = lines_of(text)
    found = [*_of_each(rulebook), *_of_pairs(rulebook), *_of_dates(rulebook, today), *_of_second_reader(rulebook)]
    return sorted(
        {Problem(line_of(lines, path), dotted(path), what, cure, is_error) for path, what, cure, is_error in found}
    )


def _of_second_reader(rulebook: Rulebook) -> Iterator[Found]:
    least = rulebook.second_reader_from
    if least and not any(rulebook.asks_second_reader(each.severity) for each in rulebook.requirements):
        what = f"No requirement is {' or '.join(least.and_heavier)}, so no second reader is ever asked."
        yield ("second_reader_from",), what, "Name a severity that a requirement has, or leave the line out.", False


def _of_each(rulebook: Rulebook) -> Iterator[Found]:
    for number, requirement in enumerate(rulebook.requirements):
        here = ("requirement", number)
        yield from _unreachable(requirement, here)
        yield from _contradictory(requirement, here)
        for path, match in _matches(requirement, here):
            yield from _idle_patterns(match, path)


def _unreachable(requirement: Requirement, here: tuple[str | int, ...]) -> Iterator[Found]:
    cure = "Change one of the two conditions, or remove the requirement."
    for match in requirement.applies_to:
        if any(_takes_all(taken, match) for taken in requirement.unless):
            yield (*here, "unless"), "It takes out all that 'applies_to' lets in, so it never applies.", cure, True
        if any(_takes_all(exemption.match, match) for exemption in requirement.exemptions):
            yield (*here, "exemptions"), "An exemption takes out all that 'applies_to' lets in.", cure, True
    if requirement.when is not None and requirement.expect is not None:
        for kind in _asked(requirement.when) & _banned(requirement.expect):
            yield (*here, "expect"), f"It bans the {kind} that 'when' asks for, so it is never met.", cure, True


def _takes_all(taken: Match, match: Match) -> bool:
    """Whether every image that fits ``match`` is sure to fit ``taken``, whose conditions are then no narrower."""
    wanted, given = dict(taken.fields), dict(match.fields)
    if any(name not in given or not _no_narrower(wanted[name], given[name]) for name in wanted):
        return False
    if taken.min_age is not None and (match.min_age is None or match.min_age < taken.min_age):
        return False
    if taken.max_age is not None and (match.max_age is None or match.max_age > taken.max_age):
        return False
    if not set(taken.records) <= set(match.records):
        return False
    return taken.image in (None, match.image) and taken.region in (None, match.region)


def _no_narrower(one: Patterns, other: Patterns) -> bool:
    """Whether ``one`` is found wherever ``other`` is, as far as their texts tell: it has its alternatives, or takes any
    text at all."""
    return set(other.sources) <= set(one.sources) or one.found_in("") or bool({".", ".+"} & set(one.sources))


def _contradictory(requirement: Requirement, here: tuple[str | int, ...]) -> Iterator[Found]:
    for name, expected in _expectations(requirement):
        for kind in sorted(_asked(expected) & _banned(expected)):
            yield (*here, name), f"It asks for {kind} and bans it, so it is never met.", "Remove one of the two.", True
    if requirement.agree is not None and requirement.agree[0] == requirement.agree[1]:
        yield (*here, "agree"), "Both sources are the same, so they always agree.", "Name two sources.", True
    if requirement.pair is not None and requirement.pair.one == requirement.pair.other:
        yield (*here, "pair"), "'one' and 'other' are the same.", "Say what the other image shows instead.", True
    if requirement.each_of and requirement.limits and requirement.limits[1] == 0:
        yield (*here, "each_of"), "None of them may be there, and each must be.", "Remove the upper limit.", True


def _of_pairs(rulebook: Rulebook) -> Iterator[Found]:
    """Requirements that cannot both be met by a study to which both apply."""
    numbered = list(enumerate(rulebook.requirements))
    for (_, one), (second, other) in combinations(numbered, 2):
        here = ("requirement", second)
        cure = f"Compare it with '{one.id}' and change or remove one of them."
        if _body(one) == _body(other):
            yield here, f"It asks the same as '{one.id}'.", cure, False
        elif _meet(one, other):
            if one.limits is None and other.limits is None and _ban_each_other(one, other):
                yield here, f"It contradicts '{one.id}': no image can meet both.", cure, True
            elif one.expect == other.expect and _cannot_both(one.limits, other.limits):
                yield here, f"It contradicts '{one.id}': no number of images meets both.", cure, True


def _of_dates(rulebook: Rulebook, today: date | None) -> Iterator[Found]:
    if today is None:
        return
    for number, requirement in enumerate(rulebook.requirements):
        if requirement.effective_until and requirement.effective_until < today:
            what = f"It has not been in force since {requirement.effective_until}."
            yield ("requirement", number, "effective_until"), what, "Remove it, or give it a later date.", False
    for number, waiver in enumerate(rulebook.waivers):
        if waiver.until < today:
            what = f"The waiver ended on {waiver.until}."
            yield ("waiver", number, "until"), what, "Remove it, or renew it with a new reason.", False


def _idle_patterns(match: Match, here: tuple[str | int, ...]) -> Iterator[Found]:
    for name, patterns in match.fields:
        path = (*here, name)
        for source in patterns.sources:
            if "_" in source:
                yield path, f"/{source}/ never finds its underscore.", "Write a blank: '_' and '^' read as one.", True
        if patterns.found_in(""):
            yield path, "It is found in every text.", "Remove the empty alternative, or leave the field out.", False
        if name in _DEFINED and not patterns.found_in(*_DEFINED[name]):
            values = ", ".join(_DEFINED[name])
            yield path, f"It finds none of the values that {name} can have.", f"These are {values}.", True


def _matches(requirement: Requirement, here: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Match]]:
    for name in ("applies_to", "unless"):
        for number, match in enumerate(getattr(requirement, name)):
            yield (*here, name, number), match
    for number, exemption in enumerate(requirement.exemptions):
        yield (*here, "exemptions", number, "match"), exemption.match
    for number, member in enumerate(requirement.each_of):
        if member.match is not None:
            yield (*here, "each_of", number, "match"), member.match
    for name, expected in _expectations(requirement):
        for part in _parts(expected):
            if part.header is not None:
                yield (*here, name), part.header


def _expectations(requirement: Requirement) -> Iterable[tuple[str, Expectation]]:
    pair = (requirement.pair.one, requirement.pair.other) if requirement.pair else ()
    named = [("when", requirement.when), ("expect", requirement.expect)]
    named += [("agree", source) for source in requirement.agree or ()]
    named += [("pair", side) for side in pair]
    return [(name, expected) for name, expected in named if expected is not None]


def _parts(expected: Expectation) -> Iterator[Expectation]:
    yield expected
    for part in expected.parts:
        yield from _parts(part)


def _asked(expected: Expectation) -> set[str]:
    """Kinds that must be on the image for certain."""
    own = {expected.annotation} if expected.annotation else set()
    return own.union(*(_asked(part) for part in expected.all_of))


def _banned(expected: Expectation) -> set[str]:
    """Kinds that must not be on the image for certain."""
    own = {expected.without} if expected.without else set()
    own |= {part.annotation for part in expected.none_of if part.is_simple and part.annotation}
    return own.union(*(_banned(part) for part in expected.all_of))


def _ban_each_other(one: Requirement, other: Requirement) -> bool:
    if one.expect is None or other.expect is None:
        return False
    return bool(_asked(one.expect) & _banned(other.expect) or _banned(one.expect) & _asked(other.expect))


def _meet(one: Requirement, other: Requirement) -> bool:
    """Whether an image to which one of them applies is sure to be one to which the other does."""
    if one.when or other.when or one.unless != other.unless or one.exemptions or other.exemptions:
        return False
    if not _at_one_time(one, other):
        return False
    return not one.applies_to or not other.applies_to or bool(set(one.applies_to) & set(other.applies_to))


def _at_one_time(one: Requirement, other: Requirement) -> bool:
    starts = max(one.effective_from or date.min, other.effective_from or date.min)
    return starts <= min(one.effective_until or date.max, other.effective_until or date.max)


def _cannot_both(one: tuple[int, int | None] | None, other: tuple[int, int | None] | None) -> bool:
    if one is None or other is None:
        return False
    (least, most), (other_least, other_most) = one, other
    return (most is not None and other_least > most) or (other_most is not None and least > other_most)


def _body(requirement: Requirement) -> Requirement:
    return requirement.model_copy(update={"id": "", "title": "", "source": "", "remedy": ""})


def errors_among(problems: Sequence[Problem]) -> list[Problem]:
    """The problems for which a rule book must not be put in force."""
    return [problem for problem in problems if problem.is_error]
