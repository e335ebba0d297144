"""Old studies from a PACS."""

from datetime import date
from typing import Annotated

import typer

from service import logs
from service.cli.accounts import BY_HAND
from service.cli.console import err, out, progress_of_unknown
from service.cli.report import in_order
from service.db import audit, schema
from service.db.session import database
from service.deliver.send import Node
from service.errors import ConfigurationError
from service.settings import settings

app = typer.Typer()

NOT_ALL = 1


@app.command()
def backfill(
    node: Annotated[str, typer.Argument(help="The PACS: AET@HOST:PORT.")],
    first: Annotated[str, typer.Option("--from", help="First day, 2026-01-31.")],
    last: Annotated[str, typer.Option("--to", help="Last day, included.")],
    modality: Annotated[str, typer.Option(help="Only series of this modality; empty means all.")] = "US",
    by_move: Annotated[bool, typer.Option("--move", help="C-MOVE to our receiver instead of C-GET.")] = False,
    rate: Annotated[float, typer.Option(min=0.01, help="Instances a second at most.")] = 20.0,
    between: Annotated[str, typer.Option(help="Only at these hours, by the hospital's clock: 20:00-06:00.")] = "",
) -> None:
    """Fetch studies of past days from a PACS: only what is not here, resumable. Status 1 when some did not come."""
    from service.deliver.backfill import Backfiller, Pace, Wanted, Window

    logs.configure("backfill")
    schema.require_usable(database())
    wanted = Wanted(
        Node.parse(node),
        _day(first),
        _day(last),
        modality,
        "move" if by_move else "get",
        Pace(rate, Window.parse(between)),
    )
    in_order(wanted.first_day, wanted.last_day)
    with database().begin() as session:
        told = {"node": node, "from": first, "to": last, "modality": modality}
        audit.record(session, BY_HAND, "backfill.run", "", detail=told)
    with progress_of_unknown("Fetching studies") as (expect, advance):
        found = Backfiller(database(), settings(), wanted).run(expect, advance)
    out.print(
        f"{found.studies} studies, {found.listed} instances listed, {found.fetched} fetched,"
        f" {found.failed} studies not complete.",
        highlight=False,
    )
    if not found.finished:
        err.print("Run the same command again: it goes on where this one stopped.", highlight=False)
        raise typer.Exit(NOT_ALL)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"'{text}' is no day.", cure="Write it as 2026-01-31.") from error
