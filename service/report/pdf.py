"""The report on paper: a chart of the rates with their limits, and the table behind it."""

from __future__ import annotations

import io
from math import ceil
from xml.sax.saxutils import escape

from reportlab.graphics.shapes import Circle, Drawing, Line, PolyLine, Rect, String
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from service.report.agreement import sentence
from service.report.compliance import TIMES, Report, Row

_WIDTH, _HEIGHT = 255 * mm, 75 * mm
_LEFT, _BOTTOM = 14 * mm, 14 * mm
_INK, _LIMIT, _SIGNAL = colors.HexColor("#1f2933"), colors.HexColor("#7b8794"), colors.HexColor("#b44d12")
_MOST_POINTS = 60
_MOST_NAMES = 14  # below the chart; the table has them all


def pdf(report: Report) -> bytes:
    """The report as a PDF, A4 across; the same report gives the same bytes."""
    memory = io.BytesIO()
    title = f"Compliance by {', '.join(report.group_by)}"
    document = SimpleDocTemplate(
        memory, pagesize=landscape(A4), title=title, author="Sonomark", invariant=1,
        leftMargin=15 * mm, rightMargin=15 * mm, topMargin=12 * mm, bottomMargin=12 * mm,
    )  # fmt: skip
    styles = getSampleStyleSheet()
    story: list[Flowable] = [
        Paragraph(title, styles["Title"]),
        Paragraph(_sentence(report), styles["Normal"]),
        Paragraph(sentence(report.agreement), styles["Normal"]),
        Spacer(1, 4 * mm),
        _chart(report),
        Spacer(1, 4 * mm),
        _table(report),
    ]
    document.build(story)
    return memory.getvalue()


def _sentence(report: Report) -> str:
    total = report.total
    rate = "no study was judged" if total.rate is None else f"{_percent(total.rate)} compliant {_interval(total)}"
    site = f" at {escape(report.site)}" if report.site else ""
    withheld = f" Left out: {report.withheld} that await the asker's blinded answer." if report.withheld else ""
    return (
        f"Studies received{site} {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d} (UTC), "
        f"as of {report.as_of:%Y-%m-%d %H:%M}: "
        f"{rate}, n {total.denominator}, non-compliant {total.non_compliant}, uncertain {total.indeterminate}, "
        f"excluded {total.excluded}. Dashed: three-sigma limits; a square lies outside them, a hollow point is small."
        f"{withheld}"
    )


def _chart(report: Report) -> Drawing:
    """Rates in order, joined where the order is time, within their stepped limits."""
    drawing = Drawing(_WIDTH, _HEIGHT)
    rows = [row for row in report.rows if row.rate is not None][-_MOST_POINTS:]
    lowest = min((min(row.rate or 0.0, row.limits[0] if row.limits else 1.0) for row in rows), default=0.0)
    floor = max(0.0, ceil(20 * lowest - 1) / 20 - 0.05)  # a round share below the lowest
    top, right = _HEIGHT - 4 * mm, _WIDTH - 4 * mm

    def up(share: float) -> float:
        return float(_BOTTOM + (top - _BOTTOM) * (share - floor) / (1.0 - floor))

    step = (right - _LEFT) / max(1, len(rows))
    drawing.add(Rect(_LEFT, _BOTTOM, right - _LEFT, top - _BOTTOM, strokeColor=_LIMIT, fillColor=None, strokeWidth=0.5))
    for part in range(5):
        share = floor + (1.0 - floor) * part / 4
        drawing.add(String(_LEFT - 2, up(share) - 3, _percent(share), fontSize=7, textAnchor="end"))
    if report.total.rate is not None:
        centre = up(report.total.rate)
        drawing.add(Line(_LEFT, centre, right, centre, strokeColor=_LIMIT, strokeWidth=0.5))
    points = []
    for number, row in enumerate(rows):
        left, middle = _LEFT + number * step, _LEFT + (number + 0.5) * step
        for limit in row.limits or ():
            across = (left, up(limit), left + step, up(limit))
            drawing.add(Line(*across, strokeColor=_LIMIT, strokeWidth=0.6, strokeDashArray=[2, 2]))
        points.append((middle, up(row.rate or 0.0), row))
        if number % ceil(len(rows) / _MOST_NAMES) == 0:
            name = " · ".join(row.key) or "—"
            drawing.add(String(middle, _BOTTOM - 9, name[:18], fontSize=6.5, textAnchor="middle"))
    if report.group_by[0] in TIMES and len(report.group_by) == 1 and len(points) > 1:
        joined = [value for across, high, _ in points for value in (across, high)]
        drawing.add(PolyLine(joined, strokeColor=_INK, strokeWidth=0.8))
    for across, high, row in points:
        drawing.add(_point(across, high, row))
    return drawing


def _point(across: float, high: float, row: Row) -> Rect | Circle:
    if row.signal:
        return Rect(across - 2.6, high - 2.6, 5.2, 5.2, fillColor=_SIGNAL, strokeColor=_SIGNAL)
    return Circle(across, high, 2.2, fillColor=colors.white if row.small else _INK, strokeColor=_INK, strokeWidth=0.8)


def _table(report: Report) -> Table:
    head = [*report.group_by, "n", "compliant", "rate", "95 % interval", "signal", "missing", "uncertain", "excluded",
            "override", "minutes"]  # fmt: skip
    lines = [[*(_short(name) for name in row.key), *_cells(row)] for row in report.rows]
    table = Table([head, *lines], repeatRows=1)
    first_number = len(report.group_by)
    table.setStyle(
        TableStyle(
            [
                ("FONTSIZE", (0, 0), (-1, -1), 7.5),
                ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
                ("ALIGN", (first_number, 0), (-1, -1), "RIGHT"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.6, _INK),
                ("LINEBELOW", (0, 1), (-1, -1), 0.2, _LIMIT),
                ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
            ]
        )
    )
    return table


def _cells(row: Row) -> list[str]:
    return [
        str(row.denominator),
        str(row.numerator),
        "–" if row.rate is None else _percent(row.rate),
        _interval(row),
        row.signal or "",
        str(row.non_compliant),
        str(row.indeterminate),
        str(row.excluded),
        "–" if row.override_rate is None else _percent(row.override_rate),
        "–" if row.minutes_to_correction is None else f"{row.minutes_to_correction:.0f}",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(row: Row) -> str:
    return "" if row.interval is None else f"({100 * row.interval[0]:.1f}–{100 * row.interval[1]:.1f})"


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"
