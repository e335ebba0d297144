"""The report as a file: JSON, CSV, XLSX or PDF."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator

import xlsxwriter

from service.db.days import zone
from service.report.agreement import sentence
from service.report.compliance import Report, Row
from service.report.pdf import pdf

Value = str | int | float | None

_COLUMNS = (
    "compliant",
    "denominator",
    "rate",
    "interval_low",
    "interval_high",
    "limit_low",
    "limit_high",
    "signal",
    "small",
    "non_compliant",
    "indeterminate",
    "excluded",
    "overridden",
    "flagged_reviewed",
    "override_rate",
    "median_minutes_to_correction",
    "corrected",
)
_SHARES = ("rate", "interval_low", "interval_high", "limit_low", "limit_high", "override_rate")  # of 1; else numbers
# A cell that begins like this is a formula to a spreadsheet, also behind blanks (OWASP, CSV Injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
MEDIA_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pdf": "application/pdf",
}


def as_file(report: Report, kind: str) -> bytes:
    """The report in one of `MEDIA_TYPES`."""
    writers: dict[str, Callable[[Report], bytes]] = {"json": _json, "csv": _csv, "xlsx": _xlsx, "pdf": pdf}
    return writers[kind](report)


def harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an operator's name may be ``=HYPERLINK(…)``."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _json(report: Report) -> bytes:
    return json.dumps(report.as_json(), ensure_ascii=False, indent=1).encode()


def _csv(report: Report) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_head(report))
    writer.writerows(
        [[harmless(value) if isinstance(value, str) else value for value in line] for line in _lines(report)]
    )
    # Excel reads UTF-8 only behind a byte order mark.
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def _xlsx(report: Report) -> bytes:
    memory = io.BytesIO()
    # constant_memory writes each row as it comes; strings_to_formulas off keeps names what they are.
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(memory, options) as book:
        book.set_properties({"created": report.as_of.replace(tzinfo=None)})
        bold, share = book.add_format({"bold": True}), book.add_format({"num_format": "0.0%"})
        sheet = book.add_worksheet("Compliance")
        sheet.freeze_panes(1, len(report.group_by))
        sheet.write_row(0, 0, _head(report), bold)
        formats = [share if name in _SHARES else None for name in _head(report)]
        for number, line in enumerate(_lines(report), start=1):
            for column, (value, shown) in enumerate(zip(line, formats, strict=True)):
                sheet.write(number, column, value, shown)
        about = book.add_worksheet("About")
        for number, explained in enumerate(_about(report)):
            about.write_row(number, 0, explained)
    return memory.getvalue()


def _head(report: Report) -> list[str]:
    return [*report.group_by, *_COLUMNS]


def _lines(report: Report) -> Iterator[list[Value]]:
    for row in report.rows:
        yield [*row.key, *_values(row)]


def _values(row: Row) -> list[Value]:
    low, high = row.interval or (None, None)
    bottom, top = row.limits or (None, None)
    return [
        row.numerator,
        row.denominator,
        row.rate,
        low,
        high,
        bottom,
        top,
        row.signal or "",
        "small" if row.small else "",
        row.non_compliant,
        row.indeterminate,
        row.excluded,
        row.overridden,
        row.flagged_reviewed,
        row.override_rate,
        row.minutes_to_correction,
        row.corrected,
    ]


def _about(report: Report) -> list[tuple[str, str]]:
    return [
        ("Studies first received from", report.start.isoformat()),
        ("up to, not including", report.end.isoformat()),
        ("as of", report.as_of.isoformat()),
        ("days, weeks and months of", zone().key),
        ("site", report.site or "all"),
        ("withheld", f"{report.withheld} studies that await the blinded answer of whoever asked"),
        ("rows count", "studies; of a requirement, those in which it was judged"),
        ("rate", "compliant / (compliant + non-compliant); decisions of people outrank verdicts"),
        ("interval", "Wilson score interval, 95 %"),
        ("limits", "three sigmas around the rate of the whole report (p-chart)"),
        ("corrected", "flagged, then complete by a further image; minutes between the two verdicts"),
        ("agreement", sentence(report.agreement)),
    ]
