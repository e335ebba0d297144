"""The rule book: what a hospital requires, declared in TOML, checked by pydantic, never executed.

    name = "default"
    version = "1.0.0"

    [[requirement]]
    id = "breast-body-marker"
    title = "Body marker on breast images"
    severity = "major"
    applies_to = { exam = "breast|mamm" }
    expect = { annotation = "body_marker" }

docs/rulebooks.md explains every field; `load` names file, line, field and cure of everything that is wrong.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from service.compliance import facts
from service.compliance.conditions import Expectation, Match, Matches, Part, Records
from service.compliance.outcome import Severity, Verdict
from service.compliance.problems import Problem, problems_in, syntax_problem, too_deep
from service.errors import RulebookError
from service.settings import RULEBOOKS

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
Weight = Literal[Severity.CRITICAL, Severity.MAJOR, Severity.MINOR]  # what decides a verdict
# Findings that the evaluation makes by itself; no rule may take their names.
RESERVED = ("image-assessed", "one-version")


class Member(Part):
    """One of the things of which a study must hold each, such as the left and the right side."""

    name: str = Field(min_length=1)
    match: Match | None = None  # by the header
    expect: Expectation | None = None  # or by what the image shows

    @model_validator(mode="after")
    def _is_told_apart(self) -> Self:
        if (self.match is None) == (self.expect is None):
            raise ValueError("say with either 'match' or 'expect' which images belong to it")
        return self


class Pair(Part):
    """Every image that shows ``one`` needs another of the same view that shows ``other``."""

    one: Expectation
    other: Expectation
    same: tuple[facts.Field, ...] = ("series_description", "view", "laterality")


class Exemption(Part):
    """Images that a requirement leaves alone, and why."""

    match: Match
    reason: str = Field(min_length=1)


class Waiver(Part):
    """A requirement set aside for a while, and why."""

    requirement: Id
    reason: str = Field(min_length=1)
    until: date  # the last day on which it holds
    since: date | None = None
    match: Match | None = None

    @model_validator(mode="after")
    def _holds_some_day(self) -> Self:
        if self.since is not None and self.until < self.since:
            raise ValueError("'until' lies before 'since', so it never holds")
        return self


class Requirement(Part):
    """One thing that must be there."""

    id: Id
    title: str = Field(min_length=1)
    severity: Severity = Severity.MAJOR
    source: str = ""  # the guideline it comes from
    remedy: str = ""  # what to do when it is missing
    applies_to: Matches = ()  # one of these; none: every image
    unless: Matches = ()
    when: Expectation | None = None  # only images that show this
    expect: Expectation | None = None
    agree: tuple[Expectation, Expectation] | None = None  # two sources that must say the same
    pair: Pair | None = None
    at_least: int | None = Field(None, ge=1, description="Images of the study; without any of the three: every image.")
    at_most: int | None = Field(None, ge=0)
    exactly: int | None = Field(None, ge=0)
    each_of: tuple[Member, ...] = ()
    cine: Literal["any", "most", "every"] = "any"  # sampled frames of a cine that must carry the annotation
    effective_from: date | None = None
    effective_until: date | None = None
    grace_days: int = Field(0, ge=0, description="Days from effective_from on which a lack is only information.")
    exemptions: tuple[Exemption, ...] = ()

    @cached_property
    def limits(self) -> tuple[int, int | None] | None:
        """How many images must show it: at least and at most so many; None: every image."""
        if self.exactly is not None:
            return self.exactly, self.exactly
        if self.at_most is not None:
            return 0, self.at_most
        if self.at_least is not None or self.each_of:
            return self.at_least or 1, None
        return None

    @cached_property
    def reads_words_only(self) -> bool:
        """Whether the header's text alone decides to which images it applies."""
        return all(match.reads_words_only for match in (*self.applies_to, *self.unless))

    @cached_property
    def of_study(self) -> bool:
        """Whether it asks something of the study as a whole, so that a single image cannot answer it."""
        return self.limits is not None or self.pair is not None

    @cached_property
    def expectations(self) -> tuple[Expectation, ...]:
        """Everything it asks of images, in whatever part."""
        pair = (self.pair.one, self.pair.other) if self.pair else ()
        members = (member.expect for member in self.each_of)
        return tuple(part for part in (self.when, self.expect, *(self.agree or ()), *pair, *members) if part)

    @cached_property
    def asks_for_text(self) -> bool:
        """Whether it looks at what is written on images."""
        return any(part.asks_for_text for part in self.expectations)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Every kind of annotation it looks at."""
        return tuple(dict.fromkeys(kind for part in self.expectations for kind in part.kinds))

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        asked = [name for name in ("expect", "agree", "pair") if getattr(self, name) is not None]
        if len(asked) != 1:
            raise ValueError(f"exactly one of 'expect', 'agree' and 'pair' says what is required, not {_listed(asked)}")
        counts = [name for name in ("at_least", "at_most", "exactly") if getattr(self, name) is not None]
        if len(counts) > 1:
            raise ValueError(f"{_listed(counts)} exclude each other; an upper and a lower limit are two requirements")
        if self.expect is None and (counts or self.each_of):
            raise ValueError(f"'{(counts or ['each_of'])[0]}' counts images that show 'expect'; it has no meaning here")
        if self.id in RESERVED:
            raise ValueError(f"'{self.id}' is a finding the evaluation makes by itself; choose another id")
        if self.effective_from and self.effective_until and self.effective_until < self.effective_from:
            raise ValueError("'effective_until' lies before 'effective_from', so it is never in force")
        if self.grace_days and self.effective_from is None:
            raise ValueError("'grace_days' count from 'effective_from', which is missing")
        return self


class ExampleImage(Part):
    """An image of an example; without ``text`` nobody has read what is written on it."""

    header: dict[facts.Field, str] = Field(default_factory=dict)
    shows: tuple[facts.Kind, ...] = ()
    count: dict[facts.Kind, int] = Field(default_factory=dict)
    unsure: tuple[facts.Kind, ...] = ()
    text: tuple[str, ...] | None = None
    regions: tuple[facts.Region, ...] | None = None
    measurements: int | None = None
    records: Records = ()
    assessed: bool = True


class Example(Part):
    """A study and the verdict that the rule book must reach on it; ``sonomark rules test`` tries them all."""

    name: str = Field(min_length=1)
    header: dict[facts.Field, str] = Field(default_factory=dict)
    records: Records = ()
    images: tuple[ExampleImage, ...]
    study_date: date | None = None
    patient_age: float | None = None
    verdict: Verdict
    missing: tuple[Id, ...] | None = None
    uncertain: tuple[Id, ...] | None = None


class Rulebook(Part):
    """A versioned set of requirements."""

    name: Id
    version: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$", max_length=32)
    title: str = ""
    source: str = ""
    second_reader_from: Weight | None = None  # whoever overrides a lack of this weight says why, and is read after
    requirements: tuple[Requirement, ...] = Field(alias="requirement")
    waivers: tuple[Waiver, ...] = Field((), alias="waiver")
    examples: tuple[Example, ...] = Field((), alias="example")
    sha256: str = ""  # of the TOML text, set by `parse`
    toml: str = Field("", repr=False)

    @property
    def label(self) -> str:
        """``name@version+sha256[:12]``, stored with every verdict."""
        return f"{self.name}@{self.version}+{self.sha256[:12]}"

    @cached_property
    def memo(self) -> dict[str, Any]:
        """What was worked out once from this rule book, and is no part of what it says: see headers.py."""
        return {}

    @cached_property
    def asks_for_text(self) -> bool:
        """Whether a requirement looks at what is written on images, so that somebody must read it."""
        return any(requirement.asks_for_text for requirement in self.requirements)

    def asks_second_reader(self, severity: Severity) -> bool:
        """Whether overriding a missing requirement of this severity needs a note and a second reader."""
        least = self.second_reader_from
        return least is not None and severity.rank <= least.rank

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if not self.requirements:
            raise ValueError("a rule book without a [[requirement]] judges nothing; write at least one")
        ids = [requirement.id for requirement in self.requirements]
        doubled = sorted({name for name in ids if ids.count(name) > 1})
        if doubled:
            raise ValueError(f"{_listed(doubled)} stands for several requirements; ids must differ")
        strangers = sorted({waiver.requirement for waiver in self.waivers} - set(ids))
        if strangers:
            raise ValueError(f"a waiver speaks of {_listed(strangers)}, which is no requirement of this rule book")
        return self


def load(name_or_path: str | Path) -> Rulebook:
    """The rule book of this name (shipped with Sonomark) or in this TOML file; raises `RulebookError`."""
    file = find(name_or_path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RulebookError(
            f"Rule book {file} cannot be read: {_reason(error)}.",
            cure=f"Give the name of a shipped rule book ({', '.join(shipped())}), or the path of a TOML file in UTF-8"
            " that can be read.",
        ) from error
    return parse(text, str(file))


def shipped() -> list[str]:
    """Names of the rule books that come with Sonomark."""
    return sorted(path.stem for path in RULEBOOKS.glob("*.toml"))


def find(name_or_path: str | Path) -> Path:
    """Where the rule book lies: a bare name is looked up among the shipped ones, then here."""
    text = str(name_or_path)
    shipped = RULEBOOKS / f"{text}.toml"
    bare = "/" not in text and not text.endswith(".toml")
    return shipped if bare and (shipped.is_file() or not Path(text).is_file()) else Path(text)


def parse(text: str, file: str = "rule book") -> Rulebook:
    """The rule book written in ``text``; raises `RulebookError` that lists every problem."""
    rulebook, problems = read(text)
    if rulebook is None:
        raise RulebookError(
            "\n".join(problem.against(file) for problem in problems),
            cure="Correct the lines named; `sonomark rules check FILE` reads it again.",
        )
    return rulebook


def read(text: str) -> tuple[Rulebook | None, Sequence[Problem]]:
    """The rule book, or None and what is wrong with it."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [syntax_problem(error, text)]
    except RecursionError:
        return None, [too_deep()]
    digest = hashlib.sha256(text.encode()).hexdigest()
    own = [name for name in ("sha256", "toml") if name in tables]
    for name in own:
        tables[f"{name} "] = tables.pop(name)  # reserved here, unknown there
    try:
        return Rulebook.model_validate({**tables, "sha256": digest, "toml": text}), []
    except ValidationError as error:
        return None, problems_in(error, text, _fields())
    except RecursionError:
        return None, [too_deep()]


def _fields() -> set[str]:
    """Every field name of every table."""
    tables = (Rulebook, Requirement, Match, Expectation, Member, Pair, Exemption, Waiver, Example, ExampleImage)
    names = {field.alias or name for table in tables for name, field in table.model_fields.items()}
    return names - {"sha256", "toml"}


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names) or "none of them"


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "it is not UTF-8 text"
