"""Regular expressions for rule books: linear in the length of the text, whatever the pattern."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2

_REMEMBERED = 4096  # headers per pattern: they repeat, and a look-up costs a tenth of a search
_LONGEST = 1024  # characters of a header field that are looked at; DICOM's LO ends at 64, LT at 10,240


class BadPattern(ValueError):
    """The pattern cannot be compiled; the message says why and what to do."""


class Patterns:
    """Alternatives, of which one is to be found somewhere in a text, regardless of case.

    Backtracking engines can take years for a hostile pattern; RE2 cannot, and so knows no look-around and no
    back-references. Scanners write "US_BREAST_LT" and "US^BREAST": both separators read as a blank here.
    """

    def __init__(self, *sources: str) -> None:
        self.sources = sources
        self._searches = [_compiled(source) for source in sources]
        self._known: dict[tuple[str, ...], bool] = {}
        self._known_texts: dict[str, bool] = {}

    def found_in(self, *texts: str) -> bool:
        """Whether one of the alternatives is found in one of the texts."""
        known = self._known.get(texts)
        if known is None:
            known = any(map(self._found_in_one, texts))
            _remember(self._known, texts, known)
        return known

    def _found_in_one(self, text: str) -> bool:
        known = self._known_texts.get(text)
        if known is None:
            seen = readable(text)
            known = any(search(seen) is not None for search in self._searches)
            _remember(self._known_texts, text, known)
        return known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.sources == other.sources

    def __hash__(self) -> int:
        return hash(self.sources)

    def __repr__(self) -> str:
        return f"Patterns{self.sources}"


def _remember(known: dict[Any, bool], what: Any, answer: bool) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[what] = answer


def readable(text: str) -> str:
    """A header's text as patterns see it."""
    return text[:_LONGEST].replace("_", " ").replace("^", " ")


@lru_cache(maxsize=4096)
def _compiled(source: str) -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = 8 << 20
    try:
        return re2.compile(source, options).search
    except re2.error as error:
        raise BadPattern(_reason(source, error)) from error


def _reason(source: str, error: Exception) -> str:
    why = error.args[0] if error.args else error
    why = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
    if "(?=" in source or "(?!" in source or "(?<" in source:
        return f"{why}: look-ahead and look-behind are not offered; say it with 'unless' instead."
    return f"{why}: write a regular expression in RE2 syntax; put \\ before a character meant literally."
