"""Where in a TOML text a field stands, so that an error can name its line. The parser itself keeps no positions."""

from __future__ import annotations

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]

_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_TABLE = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_MARK = re.compile(r'''"""|\'\'\'|"(?:\\.|[^"\\])*"|'[^']*'|#.*|[\[\]{}]''')


def lines_of(text: str) -> dict[Path, int]:
    """The line (from 1) of every table and key at the start of a line; ("requirement", 2, "id") is one such path."""
    lines: dict[Path, int] = {(): 1}
    counts: dict[Path, int] = {}
    here: Path = ()
    for number, line in _statements(text):
        table = _TABLE.match(line)
        if table:
            here = _resolve(_parts(table[2]), counts)
            if table[1] == "[[":
                lines.setdefault(here, number)
                counts[here] = counts.get(here, -1) + 1
                here = (*here, counts[here])
            lines.setdefault(here, number)
        elif key := _KEY.match(line):
            lines[(*here, *_parts(key[1]))] = number
    return lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of ``path``, or of the nearest thing around it: the keys of an inline table share its line.

    An index that the text does not have is stepped over: a lone table may stand where a list of them is allowed.
    """
    here: Path = ()
    for part in path:
        if (*here, part) in lines:
            here = (*here, part)
        elif isinstance(part, str):
            break
    return lines[here]


def _parts(dotted: str) -> Path:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def _resolve(names: Path, counts: dict[Path, int]) -> Path:
    """A table's path with the index of the newest element wherever an array of tables is entered."""
    here: Path = ()
    for name in names[:-1]:
        here = (*here, name)
        if here in counts:
            here = (*here, counts[here])
    return (*here, *names[-1:])


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Lines on which a statement starts: not those inside an array, an inline table or a multi-line string."""
    depth, quote = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not depth and not quote:
            yield number, line
            if _TABLE.match(line):
                continue
        for mark in _MARK.findall(line):
            if quote:
                quote = "" if mark == quote else quote
            elif mark in ('"""', "'''"):
                quote = mark
            elif mark in "[{":
                depth += 1
            elif mark in "]}":
                depth -= 1
