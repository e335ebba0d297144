"""The archive: is everything there, whole, and known to the database?"""

from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table

from service import logs
from service.archive.store import archive
from service.archive.verify import CURE
from service.archive.verify import verify as look
from service.cli.console import err, out, paper, progress
from service.db import checks, schema
from service.db.session import database
from service.db.tables import now
from service.settings import settings

app = typer.Typer(no_args_is_help=True, help="The archive: verify its bytes, compare it with the database.")

ILL = 1


@app.command()
def verify(
    everything: Annotated[bool, typer.Option("--all", help="Also what was looked at within VERIFY_DAYS.")] = False,
) -> None:
    """Read archived objects again and compare each with its digest. Status 1 when one is damaged or missing."""
    logs.configure("archive")
    schema.require_usable(database())
    since = now() if everything else now() - timedelta(days=settings().verify_days)
    with database().read() as session:
        total = checks.count_unchecked(session, since)
    with progress("Verifying", total) as advance:
        found = look(archive(), database(), since, advance)
    out.print(
        f"{found.checked} objects, {found.octets / 1e6:.0f} MB: {found.ok} ok, {found.damaged} damaged,"
        f" {found.missing} missing.",
        highlight=False,
    )
    if found.damaged + found.missing:
        _list_ill()
        raise typer.Exit(ILL)


@app.command()
def status() -> None:
    """What the last looks found, and how far the scheduled verification is."""
    schema.require_usable(database())
    with database().read() as session:
        health = checks.health(session)
        passes = checks.last_passes(session, 1)
    out.print(f"{archive().check()}", highlight=False, soft_wrap=True)
    out.print(
        f"{health.stored} objects; {health.checked} looked at, {health.damaged} damaged, {health.missing} missing.",
        highlight=False,
    )
    for each in passes:
        end = f"finished {each.finished_at:%Y-%m-%d %H:%M} UTC" if each.finished_at else "under way"
        out.print(f"Pass begun {each.started_at:%Y-%m-%d %H:%M} UTC, {each.checked} looked at, {end}.", highlight=False)
    if health.ill:
        _list_ill()
        raise typer.Exit(ILL)


@app.command()
def reconcile(
    repair: Annotated[
        bool, typer.Option("--repair", help="Also register, mend and clean up; only what a policy released is deleted.")
    ] = False,
) -> None:
    """Compare archive and database both ways. Status 1 when something is stray or missing."""
    from service.archive.reconcile import reconcile as compare

    logs.configure("archive")
    schema.require_usable(database())
    with err.status("Comparing archive and database …"):
        found = compare(archive(), database(), settings().settle_after, repair=repair)
    out.print(f"{found}.", highlight=False)
    if not repair and found.registered:
        err.print("Nothing was changed; `--repair` registers files without a row.", highlight=False)
    raise typer.Exit(ILL if found.stray or found.missing or (found.registered and not repair) else 0)


def _list_ill() -> None:
    table = Table("SOP Instance UID", "Condition", "Seen (UTC)", "Object")
    with database().read() as session:
        for stored, check in checks.ill(session):
            seen = f"{check.checked_at:%Y-%m-%d %H:%M}"
            table.add_row(stored.sop_instance_uid, check.condition.value, seen, stored.archive_key)
    paper().print(table)
    err.print(CURE, highlight=False)
