"""What is wrong with a rule book: where, what, and how to put it right."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from service.compliance.positions import Path, line_of, lines_of


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, with its line (from 1), its field ("requirement[2].expect.annotation") and a cure."""

    line: int
    field: str
    message: str
    cure: str = ""
    is_error: bool = True  # False: the rule book works, but hardly as meant

    def against(self, file: str) -> str:
        """One line of text, in the form editors and CI know: file:line: …"""
        where = f" {self.field}:" if self.field else ""
        return f"{file}:{self.line}:{where} {self.message} {self.cure}".rstrip()


def syntax_problem(error: tomllib.TOMLDecodeError, text: str) -> Problem:
    """Text that is no TOML."""
    found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    what = str(error).split(" (at ")[0]
    line = int(found[1]) if found else len(text.splitlines()) or 1
    return Problem(line, "", f"This is not TOML: {what}.", "Look for a missing quote, bracket or equals sign there.")


def too_deep() -> Problem:
    """Brackets within brackets without end, which no parser follows."""
    return Problem(1, "", "Brackets lie too deep within each other.", "Write it as several requirements.")


def problems_in(error: ValidationError, text: str, fields: Collection[str]) -> list[Problem]:
    """TOML that is no rule book: every problem that pydantic found, in the order of the file.

    ``fields`` are the names a rule book knows, from which a misspelt one's cure is taken.
    """
    lines = lines_of(text)
    return sorted(_problem(detail, lines, fields) for detail in error.errors())


def _problem(detail: Any, lines: dict[Path, int], fields: Collection[str]) -> Problem:
    path: Path = tuple(part.strip() if isinstance(part, str) else part for part in detail["loc"])
    message, cure = _in_words(detail, path, fields)
    return Problem(line_of(lines, path), dotted(path), message, cure)


def dotted(path: Path) -> str:
    """A field's path as people write it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _in_words(detail: Any, path: Path, fields: Collection[str]) -> tuple[str, str]:
    kind, given = detail["type"], detail.get("input")
    name = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return f"Unknown field '{name}'.", _nearest(name, fields)
    if kind in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", str(detail["ctx"]["expected"]))
        return f"Unknown value '{given}'.", _nearest(str(given), allowed) or f"Write one of {', '.join(allowed)}."
    if kind == "missing":
        return f"'{name}' is missing.", "Add it."
    if kind == "string_pattern_mismatch":
        return f"'{given}' is not allowed here.", f"It must match {detail['ctx']['pattern']}."
    what = detail["msg"].removeprefix("Value error, ")
    return f"{what[:1].upper()}{what[1:].rstrip('.')}.", ""


def _nearest(given: str, allowed: Collection[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else ""
