"""A report's rates as columns for a chart: a p-chart where the groups are times, a funnel where they are not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from service.report.compliance import TIMES, Report, Row
from service.report.statistics import p_limits

_STEPS = 60  # points of a funnel's curve


def chart(report: Report) -> dict[str, Any]:
    """Plain JSON columns of equal length, one entry for each group with a rate, in the order of ``x``.

    ``kind``: "p" (``x`` is midnight UTC of the group's first day, seconds since 1970) or "funnel" (``x`` is the
    denominator, and ``curve`` has the limits as smooth lines). ``signal`` is "above", "below" or null: the rate lies
    outside its limits of three sigmas. ``small``: too few studies for the limits to mean much.
    """
    in_time = len(report.group_by) == 1 and report.group_by[0] in TIMES
    rows = [row for row in report.rows if row.rate is not None]
    rows.sort(key=lambda row: (_second(row), row.key) if in_time else (row.denominator, row.key))
    centre = report.total.rate
    return {
        "kind": "p" if in_time else "funnel",
        "group_by": list(report.group_by),
        "from": report.start.isoformat(),
        "to": report.end.isoformat(),
        "as_of": report.as_of.isoformat(),
        "centre": centre,
        "groups": [dict(zip(report.group_by, row.key, strict=True)) for row in rows],
        "x": [_second(row) if in_time else row.denominator for row in rows],
        "n": [row.denominator for row in rows],
        "numerator": [row.numerator for row in rows],
        "rate": [row.rate for row in rows],
        "interval_low": [row.interval[0] if row.interval else None for row in rows],
        "interval_high": [row.interval[1] if row.interval else None for row in rows],
        "limit_low": [row.limits[0] if row.limits else None for row in rows],
        "limit_high": [row.limits[1] if row.limits else None for row in rows],
        "signal": [row.signal for row in rows],
        "small": [row.small for row in rows],
        "curve": None if in_time else _curve(centre, max((row.denominator for row in rows), default=0)),
    }


def _curve(centre: float | None, most: int) -> dict[str, list[Any]]:
    """The funnel's limits for every number of studies that is drawn."""
    sizes = sorted({max(1, round(most * 1.05 * step / _STEPS)) for step in range(1, _STEPS + 1)}) if most else []
    bounds = [p_limits(centre, size) for size in sizes] if centre is not None else []
    return {
        "n": sizes,
        "limit_low": [bound[0] for bound in bounds if bound],
        "limit_high": [bound[1] for bound in bounds if bound],
    }


def _second(row: Row) -> int:
    day = row.key[0] if len(row.key[0]) > len("2026-01") else f"{row.key[0]}-01"
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())
