"""Agreement on double reads: how often two readers answer the same, and how far that goes beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from service.db import double_reads
from service.db.double_reads import Pair
from service.db.tables import Cause, Reading, Verdict, now
from service.report.statistics import kappa, kappa_interval, wilson

_SAID = {
    Verdict.COMPLIANT: Reading.COMPLETE,
    Verdict.NON_COMPLIANT: Reading.INCOMPLETE,
    Verdict.INDETERMINATE: Reading.CANNOT_TELL,
}
# Landis and Koch, Biometrics 1977;33:159: a convention, not a law.
_WORDS = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (0.0, "slight"))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sources' answers to the same ``n`` studies. ``kappa`` is Cohen's, None where chance alone would agree."""

    n: int
    agreed: int
    kappa: float | None
    kappa_interval: tuple[float, float] | None  # 95 %
    matrix: tuple[tuple[str, str, int], ...]  # first answer, second answer, studies

    @property
    def rate(self) -> float | None:
        return self.agreed / self.n if self.n else None

    def as_json(self) -> dict[str, Any]:
        interval = wilson(self.agreed, self.n)
        return {
            "n": self.n,
            "agreed": self.agreed,
            "rate": None if self.rate is None else round(self.rate, 6),
            "interval": None if interval is None else [round(bound, 6) for bound in interval],
            "kappa": None if self.kappa is None else round(self.kappa, 4),
            "kappa_interval": None if self.kappa_interval is None else [round(b, 4) for b in self.kappa_interval],
            "words": in_words(self.kappa),
            "matrix": [{"first": one, "second": other, "studies": count} for one, other, count in self.matrix],
        }


@dataclass(frozen=True, slots=True)
class Overrides:
    """What became of overrides that the rule book wanted read a second time; no sample, so no kappa."""

    read: int
    agreed: int  # the second reader saw what the one who overrode saw
    disagreed: int
    adjudicated: int  # of those, by a third person
    waiting: int

    def as_json(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("read", "agreed", "disagreed", "adjudicated", "waiting")}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Reader against reader, and the machine against the blinded second reader, on studies received in the range."""

    start: datetime
    end: datetime
    as_of: datetime
    readers: Comparison
    machine: Comparison
    disagreed: int
    adjudicated: int
    waiting: int  # drawn studies that lacked an answer or a third person's word
    overrides: Overrides

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; times are UTC, ISO 8601."""
        return {
            "from": self.start.isoformat(),
            "to": self.end.isoformat(),
            "as_of": self.as_of.isoformat(),
            "readers": self.readers.as_json(),
            "machine": self.machine.as_json(),
            "disagreed": self.disagreed,
            "adjudicated": self.adjudicated,
            "waiting": self.waiting,
            "overrides": self.overrides.as_json(),
        }


def agreement(
    session: Session, start: datetime, end: datetime, as_of: datetime | None = None, site: str = ""
) -> Agreement:
    """The agreement on studies first received from ``start`` up to ``end`` (aware), as known at ``as_of``."""
    moment = as_of or now()
    pairs = double_reads.pairs(session, start, end, moment, site)
    return Agreement(
        start,
        end,
        moment,
        readers=compared([(pair.first, pair.second) for pair in pairs]),
        machine=compared(_with_machine(pairs)),
        disagreed=sum(pair.first is not pair.second for pair in pairs),
        adjudicated=sum(pair.adjudicated is not None for pair in pairs),
        waiting=double_reads.count_drawn(session, start, end, moment, site) - _settled(pairs),
        overrides=_overrides(session, start, end, moment, site),
    )


def _overrides(session: Session, start: datetime, end: datetime, moment: datetime, site: str) -> Overrides:
    pairs = double_reads.pairs(session, start, end, moment, site, Cause.OVERRIDE)
    asked = double_reads.count_drawn(session, start, end, moment, site, Cause.OVERRIDE)
    return Overrides(
        read=len(pairs),
        agreed=sum(pair.first is pair.second for pair in pairs),
        disagreed=sum(pair.first is not pair.second for pair in pairs),
        adjudicated=sum(pair.adjudicated is not None for pair in pairs),
        waiting=asked - _settled(pairs),
    )


def _settled(pairs: Sequence[Pair]) -> int:
    return sum(not pair.waits for pair in pairs)


def sentence(of: Agreement) -> str:
    """The agreement in one line, and what became of overrides where a second reader was asked."""
    return f"{_of_sample(of)} {of_overrides(of.overrides)}".strip()


def of_overrides(of: Overrides) -> str:
    """What became of overrides that were read a second time; empty where none was."""
    if not of.read + of.waiting:
        return ""
    return (
        f"Overrides read by a second reader: {of.read}, {of.agreed} seen alike; "
        f"{of.adjudicated} of {of.disagreed} disagreements decided, {of.waiting} waiting."
    )


def _of_sample(of: Agreement) -> str:
    if not of.readers.n:
        return f"Double reads: none complete, {of.waiting} waiting."
    kappa_of = "not defined" if of.readers.kappa is None else f"{of.readers.kappa:.2f}"
    low, high = of.readers.kappa_interval or (0.0, 0.0)
    interval = f" ({low:.2f} to {high:.2f})" if of.readers.kappa_interval else ""
    return (
        f"Double reads: {of.readers.n}, readers agree on {of.readers.agreed}, Cohen's kappa {kappa_of}{interval}, "
        f"{in_words(of.readers.kappa)}; {of.adjudicated} of {of.disagreed} disagreements decided, {of.waiting} waiting."
    )


def compared(pairs: Sequence[tuple[str, str]]) -> Comparison:
    """Agreement of two sources' answers to the same studies."""
    counted = Counter((str(one), str(other)) for one, other in pairs)
    return Comparison(
        n=len(pairs),
        agreed=sum(count for (one, other), count in counted.items() if one == other),
        kappa=kappa(pairs),
        kappa_interval=kappa_interval(pairs),
        matrix=tuple((one, other, count) for (one, other), count in sorted(counted.items())),
    )


def in_words(value: float | None) -> str:
    """Kappa as Landis and Koch put it."""
    if value is None:
        return "not defined"
    return next((words for least, words in _WORDS if value >= least), "poor")


def _with_machine(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(_SAID[pair.verdict], pair.second) for pair in pairs if pair.verdict in _SAID]
