"""The chart of a report on paper: what chart.py says, in millimetres. A p-chart over time, else a funnel by size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from reportlab.graphics.shapes import Circle, Drawing, Line, PolyLine, Rect, Shape, String
from reportlab.lib import colors
from reportlab.lib.units import mm

from service.report.chart import chart
from service.report.compliance import Report
from service.report.names import names_of

INK, LIMIT, SIGNAL = colors.HexColor("#1f2933"), colors.HexColor("#7b8794"), colors.HexColor("#b44d12")
MOST_TIMES = 60  # points over time; the newest ones, the table has them all
_WIDTH, _HEIGHT = 255 * mm, 75 * mm
_LEFT, _BOTTOM, _RIGHT, _TOP = 14 * mm, 14 * mm, _WIDTH - 4 * mm, _HEIGHT - 4 * mm
_MOST_NAMES = 14  # below the axis, or beside points
_LONGEST_NAME = 28
_DASHED = {"strokeColor": LIMIT, "strokeWidth": 0.6, "strokeDashArray": [2, 2]}


@dataclass(frozen=True, slots=True)
class _Plane:
    """Where a number of studies or a place in time, and a share, lie on the paper."""

    most: float  # at the right edge
    lowest: float  # share at the bottom

    def across(self, value: float) -> float:
        return float(_LEFT + (_RIGHT - _LEFT) * value / (self.most or 1.0))

    def up(self, share: float) -> float:
        return float(_BOTTOM + (_TOP - _BOTTOM) * (share - self.lowest) / (1.0 - self.lowest))


def drawing(report: Report) -> Drawing:
    """The rates of the report's groups within their limits; groups outside of them are squares and named."""
    told = chart(report)
    over_time = told["kind"] == "p"
    first = max(0, len(told["x"]) - MOST_TIMES) if over_time else 0
    points = range(first, len(told["x"]))
    most = len(points) if over_time else 1.05 * max(told["n"], default=1)
    plane = _Plane(most, _floor_of(told, points))
    names = names_of(report)
    called = [_name(group.values(), names) for group in told["groups"]]
    made = Drawing(_WIDTH, _HEIGHT)
    shapes = (_p_chart if over_time else _funnel)(plane, told, called, points)
    for shape in (*_frame(plane, told["centre"]), *shapes):
        made.add(shape)
    return made


def _floor_of(told: dict[str, Any], points: Sequence[int]) -> float:
    """A round share below everything that is drawn."""
    drawn = [told[name][at] for name in ("rate", "limit_low") for at in points]
    lowest = min((share for share in drawn if share is not None), default=0.0)
    return max(0.0, ceil(20 * lowest - 1) / 20 - 0.05)


def _frame(plane: _Plane, centre: float | None) -> list[Shape]:
    made: list[Shape] = [
        Rect(_LEFT, _BOTTOM, _RIGHT - _LEFT, _TOP - _BOTTOM, strokeColor=LIMIT, fillColor=None, strokeWidth=0.5)
    ]
    for part in range(5):
        share = plane.lowest + (1.0 - plane.lowest) * part / 4
        made.append(String(_LEFT - 2, plane.up(share) - 3, f"{100 * share:.1f} %", fontSize=7, textAnchor="end"))
    if centre is not None:
        made.append(Line(_LEFT, plane.up(centre), _RIGHT, plane.up(centre), strokeColor=LIMIT, strokeWidth=0.5))
    return made


def _p_chart(plane: _Plane, told: dict[str, Any], called: Sequence[str], points: Sequence[int]) -> list[Shape]:
    """Rates joined in the order of time, limits as steps."""
    made: list[Shape] = []
    joined: list[float] = []
    for place, at in enumerate(points):
        left, middle, right = (plane.across(place + part) for part in (0.0, 0.5, 1.0))
        limits = (plane.up(told[name][at]) for name in ("limit_low", "limit_high") if told[name][at] is not None)
        made += [Line(left, high, right, high, **_DASHED) for high in limits]
        joined += [middle, plane.up(told["rate"][at])]
        if place % ceil(len(points) / _MOST_NAMES) == 0:
            made.append(_below(middle, called[at]))
    if len(joined) > 2:
        made.append(PolyLine(joined, strokeColor=INK, strokeWidth=0.8))
    return [*made, *(_point(plane, place + 0.5, told, at) for place, at in enumerate(points))]


def _funnel(plane: _Plane, told: dict[str, Any], called: Sequence[str], points: Sequence[int]) -> list[Shape]:
    """Every group by its number of studies, limits as curves; those outside bear their names."""
    made: list[Shape] = []
    curve = told["curve"]
    for limits in (curve["limit_low"], curve["limit_high"]):
        line = [
            value
            for n, limit in zip(curve["n"], limits, strict=True)
            for value in (plane.across(n), plane.up(max(limit, plane.lowest)))
        ]
        if len(line) > 2:
            made.append(PolyLine(line, **_DASHED))
    step = _round_step(plane.most / 6)
    made += [_below(plane.across(n), f"{n}") for n in range(0, int(plane.most) + 1, step)]
    made += [_point(plane, told["n"][at], told, at) for at in points]
    outside = [at for at in points if told["signal"][at]]
    outside.sort(key=lambda at: abs(told["rate"][at] - told["centre"]), reverse=True)
    for at in outside[:_MOST_NAMES]:
        beyond = plane.across(told["n"][at]) > (_LEFT + _RIGHT) / 2
        across = plane.across(told["n"][at]) + (-5 if beyond else 5)
        side = "end" if beyond else "start"
        made.append(String(across, plane.up(told["rate"][at]) - 2.4, called[at], fontSize=6.5, textAnchor=side))
    return made


def _point(plane: _Plane, across: float, told: dict[str, Any], at: int) -> Shape:
    x, y = plane.across(across), plane.up(told["rate"][at])
    if told["signal"][at]:
        return Rect(x - 2.6, y - 2.6, 5.2, 5.2, fillColor=SIGNAL, strokeColor=SIGNAL)
    fill = colors.white if told["small"][at] else INK
    return Circle(x, y, 2.2, fillColor=fill, strokeColor=INK, strokeWidth=0.8)


def _below(across: float, text: str) -> String:
    return String(across, _BOTTOM - 9, text, fontSize=6.5, textAnchor="middle")


def _name(values: Iterable[str], names: Sequence[Mapping[str, str]]) -> str:
    name = " · ".join(spoken[value] for spoken, value in zip(names, values, strict=True))
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _round_step(about: float) -> int:
    """1, 2 or 5 times a power of ten, at least as large."""
    power = 10 ** max(0, floor(log10(max(about, 1))))
    return int(next(step * power for step in (1, 2, 5, 10) if step * power >= about))
