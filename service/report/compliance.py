"""The compliance report: for every group its rate, how sure it is, and whether it stands out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, Literal, get_args

from sqlalchemy.orm import Session

from service.db.days import zone
from service.db.reports import Grouping, Key, Period, Tally, tallies, withheld
from service.db.tables import now
from service.errors import ConfigurationError
from service.report.agreement import Agreement, agreement
from service.report.statistics import is_small, p_limits, wilson

GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
TIMES = ("day", "week", "month")
FEWEST_OF_A_PERSON = 20  # a rate over fewer studies says nothing about a person; pages and paper do not show it


class UnknownGrouping(ConfigurationError):
    """A report was asked for by something it cannot group by."""


@dataclass(frozen=True, slots=True)
class Row:
    """One group. ``rate`` is compliant / (compliant + non-compliant); uncertain and excluded studies are apart.

    ``limits`` are where the rate of so many studies lies by chance alone (three sigmas around the whole report's),
    ``signal`` says on which side the rate lies outside them. ``small``: too few studies for the limits to mean much.
    """

    key: Key
    numerator: int
    denominator: int
    non_compliant: int
    indeterminate: int
    excluded: int
    rate: float | None
    interval: tuple[float, float] | None  # Wilson, 95 %
    limits: tuple[float, float] | None
    signal: str | None  # "above", "below"
    small: bool
    overridden: int
    flagged_reviewed: int
    override_rate: float | None
    minutes_to_correction: float | None  # median
    corrected: int


@dataclass(frozen=True, slots=True)
class Report:
    """Rates by ``group_by``; the same question as of the same moment always gives the same report.

    ``total`` counts what ``counted`` says, ``studies`` every study once whatever it is grouped by. ``site``: the one
    institution it speaks of; empty: all. ``withheld``: studies left out because they still await the blinded answer of
    whoever asks.
    """

    group_by: tuple[Grouping, ...]
    start: datetime
    end: datetime
    as_of: datetime
    total: Row
    studies: Row
    rows: tuple[Row, ...]
    agreement: Agreement
    site: str = ""
    withheld: int = 0

    @property
    def counted(self) -> Literal["studies", "judgements"]:
        """What ``total`` counts. A study is judged by each requirement that applies to it: the rows of a requirement
        count studies, all rows together these judgements."""
        return "judgements" if "requirement" in self.group_by else "studies"

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; times are UTC, ISO 8601, days those of ``time_zone``."""
        return {
            "group_by": list(self.group_by),
            "from": self.start.isoformat(),
            "to": self.end.isoformat(),
            "as_of": self.as_of.isoformat(),
            "time_zone": zone().key,
            "site": self.site,
            "withheld": self.withheld,
            "counted": self.counted,
            "total": row_as_json(self.total, ()),
            "studies": row_as_json(self.studies, ()),
            "rows": [row_as_json(row, self.group_by) for row in self.rows],
            "agreement": self.agreement.as_json(),
        }


def report(
    session: Session,
    group_by: Sequence[str],
    start: datetime,
    end: datetime,
    as_of: datetime | None = None,
    *,
    site: str = "",
    second_reader: int | None = None,
    operator: str = "",
) -> Report:
    """The report on studies first received from ``start`` up to ``end`` (aware datetimes), as it stood at ``as_of``.

    Of one ``site`` or ``operator`` if given (the agreement is the site's), and without what awaits the blinded answer
    of the user ``second_reader``.
    Raises UnknownGrouping when it cannot group by one of ``group_by``.
    """
    by = known_groupings(group_by)
    moment = as_of or now()
    period = Period(start, end, moment, site, second_reader, operator)
    counted = tallies(session, by, period)
    whole = _merged(counted.values())
    centre = whole.compliant / _judged(whole) if _judged(whole) else None
    rows = tuple(_row(key, tally, centre) for key, tally in sorted(counted.items()))
    total = _row((), whole, None)
    studies = _row((), tallies(session, (), period).get((), Tally()), None) if "requirement" in by else total
    agreed = agreement(session, start, end, moment, site)
    return Report(by, start, end, moment, total, studies, rows, agreed, site, withheld(session, period))


def row_as_json(row: Row, group_by: Sequence[str]) -> dict[str, Any]:
    """One group with its values by name."""
    return {
        "group": dict(zip(group_by, row.key, strict=True)),
        "numerator": row.numerator,
        "denominator": row.denominator,
        "non_compliant": row.non_compliant,
        "indeterminate": row.indeterminate,
        "excluded": row.excluded,
        "rate": _rounded(row.rate),
        "interval": None if row.interval is None else [_rounded(bound) for bound in row.interval],
        "limits": None if row.limits is None else [_rounded(bound) for bound in row.limits],
        "signal": row.signal,
        "small": row.small,
        "overridden": row.overridden,
        "flagged_reviewed": row.flagged_reviewed,
        "override_rate": _rounded(row.override_rate),
        "minutes_to_correction": None if row.minutes_to_correction is None else round(row.minutes_to_correction, 1),
        "corrected": row.corrected,
    }


def known_groupings(group_by: Sequence[str]) -> tuple[Grouping, ...]:
    """The groupings asked for, each once; raises UnknownGrouping for any other name."""
    known = tuple(name for name in GROUPINGS if name in group_by)
    strange = [name for name in group_by if name not in GROUPINGS]
    if strange or not known:
        asked = ", ".join(strange) or "nothing"
        raise UnknownGrouping(f"A report cannot be grouped by {asked}.", cure=f"Choose of {', '.join(GROUPINGS)}.")
    return tuple(dict.fromkeys(name for name in group_by if name in known))


def _row(key: Key, tally: Tally, centre: float | None) -> Row:
    trials = _judged(tally)
    rate = tally.compliant / trials if trials else None
    limits = p_limits(centre, trials) if centre is not None else None
    return Row(
        key=key,
        numerator=tally.compliant,
        denominator=trials,
        non_compliant=tally.non_compliant,
        indeterminate=tally.indeterminate,
        excluded=tally.excluded,
        rate=rate,
        interval=wilson(tally.compliant, trials),
        limits=limits,
        signal=_signal(rate, limits),
        small=centre is not None and is_small(centre, trials),
        overridden=tally.overridden,
        flagged_reviewed=tally.flagged_reviewed,
        override_rate=tally.overridden / tally.flagged_reviewed if tally.flagged_reviewed else None,
        minutes_to_correction=median(tally.minutes_to_correction) if tally.minutes_to_correction else None,
        corrected=len(tally.minutes_to_correction),
    )


def _signal(rate: float | None, limits: tuple[float, float] | None) -> str | None:
    if rate is None or limits is None:
        return None
    low, high = limits
    return "below" if rate < low else "above" if rate > high else None


def _judged(tally: Tally) -> int:
    return tally.compliant + tally.non_compliant


def _merged(parts: Iterable[Tally]) -> Tally:
    whole = Tally()
    for part in parts:
        whole.compliant += part.compliant
        whole.non_compliant += part.non_compliant
        whole.indeterminate += part.indeterminate
        whole.excluded += part.excluded
        whole.flagged_reviewed += part.flagged_reviewed
        whole.overridden += part.overridden
        whole.minutes_to_correction += part.minutes_to_correction
    return whole


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
