"""The compliance report, printed or written to a file."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.cli.console import err, out, paper
from service.cli.places import writing
from service.db import schema
from service.db.days import end_of, start_of, today, within
from service.db.session import database
from service.errors import ConfigurationError
from service.report.agreement import sentence
from service.report.compliance import GROUPINGS, Report, Row
from service.report.compliance import report as compliance
from service.report.files import MEDIA_TYPES, as_file

app = typer.Typer()

DAYS = 30  # with the first and the last one, as on the dashboard's page


@app.command()
def report(
    group_by: Annotated[str, typer.Option("--by", help=f"One or more of {', '.join(GROUPINGS)}.")] = "requirement",
    start: Annotated[str, typer.Option("--from", help="First day, 2026-01-31; else 30 days up to the last.")] = "",
    end: Annotated[str, typer.Option("--to", help="Last day; today if left out.")] = "",
    as_of: Annotated[str, typer.Option(help="As it stood at this UTC time, 2026-01-31T14:00.")] = "",
    file: Annotated[Path | None, typer.Option("--out", help=f"Write it: .{', .'.join(MEDIA_TYPES)}.")] = None,
) -> None:
    """Compliance rates with their intervals. Operators' names are in it: keep the file where patients' data may be."""
    last = day(end) or today()
    first = day(start) or date.fromordinal(max(1, last.toordinal() - DAYS + 1))
    in_order(first, last)
    kind = file.suffix.removeprefix(".").lower() if file else "json"
    if kind not in MEDIA_TYPES:
        raise ConfigurationError(f"A report cannot be written as '{kind}'.", cure=f"End the name in {_endings()}.")
    schema.require_usable(database())
    with database().read() as session:
        found = compliance(session, group_by.split(","), within(start_of(first)), within(end_of(last)), _moment(as_of))
    if file is None:
        paper().print(_table(found))
        out.print(_afterwards(found.studies), soft_wrap=True)
        out.print(sentence(found.agreement), soft_wrap=True)
        return
    with writing(file):
        file.write_bytes(as_file(found, kind))
    err.print(f"{len(found.rows)} rows written.")


def _table(found: Report) -> Table:
    numbers = ("n", "compliant", "rate", "95 %", "missing", "uncertain", "excluded", "signal")
    table = Table(*found.group_by)
    for name in numbers:
        table.add_column(name, justify="right")
    for row in found.rows:
        table.add_row(*map(escape, row.key), *_cells(row))
    table.add_section()
    if found.counted != "studies":
        table.add_row("all studies", *[""] * (len(found.group_by) - 1), *_cells(found.studies))
    table.add_row(f"all {found.counted}", *[""] * (len(found.group_by) - 1), *_cells(found.total))
    return table


def _afterwards(total: Row) -> str:
    """What became of the flagged ones."""
    minutes = total.minutes_to_correction
    corrected = f"{total.corrected} corrected" + ("" if minutes is None else f", median {minutes:.0f} minutes")
    return f"Flagged: {total.flagged_reviewed} reviewed, {total.overridden} of them overridden; {corrected}."


def _cells(row: Row) -> list[str]:
    low, high = row.interval or (0.0, 0.0)
    return [
        str(row.denominator),
        str(row.numerator),
        "" if row.rate is None else f"{row.rate:.1%}",
        "" if row.interval is None else f"{low:.1%}–{high:.1%}",
        str(row.non_compliant),
        str(row.indeterminate),
        str(row.excluded),
        row.signal or "",
    ]


def day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigurationError(f"'{text}' is no day.", cure="Write it as 2026-01-31.") from error


def in_order(first: date | None, last: date | None) -> None:
    """Raises ConfigurationError where a range ends before it begins: it would hold nothing, and look like a result."""
    if first and last and first > last:
        raise ConfigurationError("The first day comes after the last.", cure="Exchange --from and --to.")


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise ConfigurationError(f"'{text}' is no time.", cure="Write it as 2026-01-31T14:00.") from error
    if moment is None:
        return None
    return within(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _endings() -> str:
    return " or ".join(f".{kind}" for kind in MEDIA_TYPES)
