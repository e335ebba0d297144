"""Texts beside each other: what one version says differently from another, and three that parted ways."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from itertools import islice, zip_longest

AROUND = 2  # unchanged lines shown before and after a change


def differences(before: str, after: str) -> list[tuple[str, str]]:
    """The lines of a unified diff, each with its kind: ``add``, ``drop``, ``same`` or ``place``."""
    kinds = {"+": "add", "-": "drop", "@": "place"}
    lines = unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    return [(kinds.get(line[:1], "same"), line if line[:1] == "@" else line[1:]) for line in islice(lines, 2, None)]


@dataclass(frozen=True)
class Line:
    """One line of three texts; None where a text has no such line."""

    base: str | None
    theirs: str | None
    mine: str | None

    @property
    def is_changed(self) -> bool:
        return not self.base == self.theirs == self.mine

    @property
    def clashes(self) -> bool:
        """Whether both changed it, and not to the same."""
        return self.base != self.theirs and self.base != self.mine and self.theirs != self.mine


def three_columns(base: str, theirs: str, mine: str) -> list[Line | None]:
    """What both made of the text they began with, line by line; None stands for lines that nobody changed."""
    lines = list(_aligned(base.splitlines(), theirs.splitlines(), mine.splitlines()))
    near = {at + step for at, line in enumerate(lines) if line.is_changed for step in range(-AROUND, AROUND + 1)}
    shown: list[Line | None] = []
    for at, line in enumerate(lines):
        if at in near:
            shown.append(line)
        elif shown and shown[-1] is not None:
            shown.append(None)
    return shown


def _aligned(base: Sequence[str], theirs: Sequence[str], mine: Sequence[str]) -> Iterator[Line]:
    (their_lines, their_new), (my_lines, my_new) = _against(base, theirs), _against(base, mine)
    for at in range(len(base) + 1):
        for new, other in zip_longest(their_new[at], my_new[at]):
            yield Line(None, new, other)
        if at < len(base):
            yield Line(base[at], their_lines[at], my_lines[at])


def _against(base: Sequence[str], other: Sequence[str]) -> tuple[list[str | None], list[list[str]]]:
    """What became of each line of ``base``, and the lines that are new before each (and after the last)."""
    became: list[str | None] = [None] * len(base)
    new: list[list[str]] = [[] for _ in range(len(base) + 1)]
    for _, start, end, other_start, other_end in SequenceMatcher(None, base, other, autojunk=False).get_opcodes():
        pairs = min(end - start, other_end - other_start)
        became[start : start + pairs] = other[other_start : other_start + pairs]
        new[end] += other[other_start + pairs : other_end]
    return became, new
