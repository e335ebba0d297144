"""Which requirements speak of an image by its header's words: worked out once for each text and once for each header.

A hospital writes the same few hundred descriptions over and over, so a hundred rules cost a few look-ups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from service.compliance.conditions import Match
from service.compliance.facts import InstanceFacts, Words
from service.compliance.matching import applies
from service.compliance.pattern import Patterns
from service.compliance.rulebook import Requirement, Rulebook

_REMEMBERED = 4096  # headers, and texts of a field

Alternatives = tuple[frozenset[int], ...]  # one of these must be found whole, by the number of each condition


class Headers:
    """The images of a study by their header's words: most share them as one object, which is looked at once."""

    def __init__(self, rulebook: Rulebook, images: Sequence[InstanceFacts]) -> None:
        self.images = images
        self.rulebook = rulebook
        index = rulebook.memo.get("headers") or rulebook.memo.setdefault("headers", Index(rulebook))
        self._spoken_of = {id(image.words): index.speaking_of(image.words) for image in images}

    def asked(self) -> Iterator[Requirement]:
        """The requirements that may concern these images, in the rule book's order."""
        named = frozenset[str]().union(*self._spoken_of.values())
        for requirement in self.rulebook.requirements:
            if requirement.id in named or not requirement.reads_words_only:
                yield requirement

    def concerned(self, requirement: Requirement) -> Sequence[InstanceFacts]:
        """The images of which the requirement speaks, in their order."""
        if not requirement.reads_words_only:
            return [image for image in self.images if applies(requirement, image)]
        fitting = {words for words, named in self._spoken_of.items() if requirement.id in named}
        if len(fitting) == len(self._spoken_of):
            return self.images
        return [image for image in self.images if id(image.words) in fitting] if fitting else ()


class Index:
    """A rule book's requirements by the conditions on words of their ``applies_to`` and ``unless``."""

    def __init__(self, rulebook: Rulebook) -> None:
        self._conditions: dict[str, list[Patterns]] = {}  # by field
        self._numbers: dict[tuple[str, Patterns], int] = {}
        self._rules: list[tuple[str, Alternatives, Alternatives]] = [
            (rule.id, self._numbered(rule.applies_to), self._numbered(rule.unless))
            for rule in rulebook.requirements
            if rule.reads_words_only
        ]
        self._known_texts: dict[str, dict[str, frozenset[int]]] = {field: {} for field in self._conditions}
        self._known: dict[tuple[object, ...], frozenset[str]] = {}

    def speaking_of(self, words: Words) -> frozenset[str]:
        """Ids of the requirements that speak of an image with these words."""
        key = tuple([words.get(field) for field in self._conditions])
        known = self._known.get(key)
        if known is None:
            met = frozenset[int]().union(
                *(self._met_by(field, text) for field in self._conditions for text in words.get(field, ()))
            )
            known = frozenset(
                name
                for name, wanted, unless in self._rules
                if (not wanted or any(map(met.issuperset, wanted))) and not any(map(met.issuperset, unless))
            )
            _remember(self._known, key, known)
        return known

    def _met_by(self, field: str, text: str) -> frozenset[int]:
        """Numbers of the field's conditions that this text meets."""
        texts = self._known_texts[field]
        known = texts.get(text)
        if known is None:
            found = (patterns for patterns in self._conditions[field] if patterns.found_in(text))
            known = frozenset(self._numbers[field, patterns] for patterns in found)
            _remember(texts, text, known)
        return known

    def _numbered(self, matches: Sequence[Match]) -> Alternatives:
        return tuple(frozenset(self._number(*condition) for condition in match.fields) for match in matches)

    def _number(self, field: str, patterns: Patterns) -> int:
        if (field, patterns) not in self._numbers:
            self._conditions.setdefault(field, []).append(patterns)
        return self._numbers.setdefault((field, patterns), len(self._numbers))


def _remember(known: dict[Any, Any], what: Any, answer: Any) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[what] = answer
