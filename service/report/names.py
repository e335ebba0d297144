"""What the groups of a report are called, on the page and on paper alike."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from service.report.compliance import Report


def names_of(report: Report) -> tuple[dict[str, str], ...]:
    """For each of ``group_by`` what its values are called; where two are called alike, each has its value beside."""
    return tuple(_told_apart(by, {row.key[at] for row in report.rows}) for at, by in enumerate(report.group_by))


def name_of(grouping: str, value: str) -> str:
    """One value of a grouping in words; a dash where the header said nothing."""
    if grouping == "requirement":
        spoken = requirement(value)
        return spoken[:1].upper() + spoken[1:]
    return (person(value) if grouping == "operator" else value) or "–"


def person(name: str) -> str:
    """A DICOM person name as people read it: 'DOE^Jane^^Dr=…' becomes 'DOE, Jane (…)'. The family name in capitals."""
    groups = [_group(part, capitals=place == 0) for place, part in enumerate(name.split("="))]
    spoken = [group for group in groups if group]
    if not spoken:
        return ""
    return spoken[0] if len(spoken) == 1 else f"{spoken[0]} ({', '.join(spoken[1:])})"


def _group(components: str, *, capitals: bool) -> str:
    family, given, middle, prefix, suffix = (*(part.strip() for part in components.split("^")), *[""] * 5)[:5]
    family = family.upper() if capitals and (given or middle) else family
    rest = " ".join(part for part in (prefix, given, middle, suffix) if part)
    return ", ".join(part for part in (family, rest) if part)


def requirement(name: str) -> str:
    """A requirement's name as a phrase, in the pages' spelling: 'doppler-color-box' becomes 'doppler colour box'."""
    return re.sub(r"\bcolor\b", "colour", name.replace("-", " ").replace("_", " "))


def _told_apart(grouping: str, values: Iterable[str]) -> dict[str, str]:
    spoken = {value: name_of(grouping, value) for value in values}
    times = Counter(spoken.values())
    return {value: f"{name} ({value})" if times[name] > 1 else name for value, name in spoken.items()}
