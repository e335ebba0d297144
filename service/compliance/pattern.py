"""Regular expressions for rule books: linear in the length of the text, whatever the pattern."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import re2

_REMEMBERED = 4096  # texts per pattern: headers repeat, and a look-up costs a tenth of a search
_LONGEST = 1024  # characters of a header field that are looked at; DICOM's LO ends at 64, LT at 10,240


class BadPattern(ValueError):
    """The pattern cannot be compiled; the message says why and what to do."""


class Pattern:
    """Finds a pattern anywhere in a text, regardless of case.

    Backtracking engines can take years for a hostile pattern; RE2 cannot, and so knows no look-around and no
    back-references. Scanners write "US_BREAST_LT" and "US^BREAST": both separators read as a blank here.
    """

    def __init__(self, source: str) -> None:
        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        options.max_mem = 8 << 20
        try:
            self._search: Any = re2.compile(source, options).search
        except re2.error as error:
            raise BadPattern(_reason(source, error)) from error
        self.source = source
        self._known: dict[str, bool] = {}

    def found_in(self, text: str) -> bool:
        known = self._known.get(text)
        if known is None:
            known = self._search(readable(text)) is not None
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = known
        return known

    def found_in_any(self, texts: Iterable[str]) -> bool:
        return any(map(self.found_in, texts))


@lru_cache(maxsize=2048)
def pattern(source: str) -> Pattern:
    """The compiled pattern; raises `BadPattern`."""
    return Pattern(source)


def readable(text: str) -> str:
    """A header's text as patterns see it."""
    return text[:_LONGEST].replace("_", " ").replace("^", " ")


def _reason(source: str, error: Exception) -> str:
    why = error.args[0] if error.args else error
    why = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
    if "(?=" in source or "(?!" in source or "(?<" in source:
        return f"{why}: look-ahead and look-behind are not offered; say it with 'unless' instead."
    return f"{why}: write a regular expression in RE2 syntax; put \\ before a character meant literally."
