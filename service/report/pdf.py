"""The report on paper: a chart of the rates with their limits, and the table behind it."""

from __future__ import annotations

import io
from datetime import timedelta
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from service.db.days import day_of, zone
from service.report.agreement import sentence
from service.report.compliance import FEWEST_OF_A_PERSON, TIMES, Report, Row
from service.report.drawing import INK, LIMIT, MOST_TIMES, drawing
from service.report.names import names_of


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
        Paragraph(sentence_of(report), styles["Normal"]),
        Paragraph(sentence(report.agreement), styles["Normal"]),
        Spacer(1, 4 * mm),
        drawing(report),
        Spacer(1, 4 * mm),
        _table(report),
    ]
    document.build(story)
    return memory.getvalue()


def sentence_of(report: Report) -> str:
    """What was counted, of which days, and how many: the line below the title."""
    site = f" at {escape(report.site)}" if report.site else ""
    withheld = f" Left out: {report.withheld} that await the asker's blinded answer." if report.withheld else ""
    last = report.end - timedelta(microseconds=1)
    over_time = report.group_by[0] in TIMES and len(report.group_by) == 1
    drawn = f" The chart shows the last {MOST_TIMES}." if over_time and len(report.rows) > MOST_TIMES else ""
    across = "" if over_time else " Across: the number of studies."
    return (
        f"Studies received{site} {day_of(report.start)} to {day_of(last)} ({zone().key}), "
        f"as of {report.as_of.astimezone(zone()):%Y-%m-%d %H:%M}: "
        f"{_rates(report)} Dashed: three-sigma limits; a square lies outside them, a hollow point is small."
        f"{across}{drawn}{withheld}"
    )


def _rates(report: Report) -> str:
    """How many studies are compliant; by requirement also how many judgements are met."""
    of, said = report.studies, "no study was judged"
    if of.rate is not None:
        said = f"{_percent(of.rate)} of the studies compliant {_interval(of)}"
    told = (
        f"{said}, n {of.denominator}, non-compliant {of.non_compliant}, uncertain {of.indeterminate}, "
        f"excluded {of.excluded}."
    )
    of = report.total
    if report.counted == "studies" or of.rate is None:
        return told
    return (
        f"{told} {_percent(of.rate)} of the judgements met {_interval(of)}, n {of.denominator}, missing "
        f"{of.non_compliant}, uncertain {of.indeterminate}: a judgement is one requirement in one study that it "
        "applies to, and the rows count studies."
    )


def _table(report: Report) -> Table:
    head = [*report.group_by, "n", "compliant", "rate", "95 % interval", "signal", "missing", "uncertain", "excluded",
            "override", "min. to correct"]  # fmt: skip
    of_people = "operator" in report.group_by
    names = names_of(report)
    lines = [
        [
            *(_short(spoken[value]) for spoken, value in zip(names, row.key, strict=True)),
            *_cells(row, of_people=of_people),
        ]
        for row in report.rows
    ]
    table = Table([head, *lines], repeatRows=1)
    first_number = len(report.group_by)
    table.setStyle(
        TableStyle(
            [
                ("FONTSIZE", (0, 0), (-1, -1), 7.5),
                ("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"),
                ("ALIGN", (first_number, 0), (-1, -1), "RIGHT"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.6, INK),
                ("LINEBELOW", (0, 1), (-1, -1), 0.2, LIMIT),
                ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
            ]
        )
    )
    return table


def _cells(row: Row, *, of_people: bool) -> list[str]:
    """What the table says of a group; over so few studies no rate of a person is told, as on the page."""
    few = of_people and row.denominator < FEWEST_OF_A_PERSON
    return [
        str(row.denominator),
        str(row.numerator),
        "–" if few or row.rate is None else _percent(row.rate),
        f"fewer than {FEWEST_OF_A_PERSON}" if few else _interval(row),
        "" if few else row.signal or "",
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
    return name if len(name) <= 60 else f"{name[:59]}…"
