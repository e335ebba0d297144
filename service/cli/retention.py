"""Retention: which bytes may go, who said so, and what is held."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service import logs
from service.archive import policy as policies
from service.archive.retention import Outlook, outlook, release_due
from service.archive.store import archive
from service.cli.accounts import BY_HAND, reason_of
from service.cli.console import err, out, paper, progress
from service.cli.places import text_of
from service.db import audit, schema, studies
from service.db import retention as rows
from service.db.days import day_of
from service.db.session import database
from service.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, help="How long bytes are kept; legal holds.")

File = Annotated[Path, typer.Argument(help="A retention policy in TOML.", exists=True, dir_okay=False)]
Study = Annotated[str, typer.Argument(help="Study Instance UID.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
SHOWN = 50


@app.command()
def check(file: File) -> None:
    """What this policy would release now. Changes nothing."""
    schema.require_usable(database())
    with database().read() as session:
        _show(outlook(session, policies.parse(text_of(file))))


@app.command()
def activate(file: File, yes: Yes = False) -> None:
    """Put a policy in force, after showing what it would release now; the sweeper then carries it out."""
    schema.require_usable(database())
    toml = text_of(file)
    policy = policies.parse(toml)
    with database().read() as session:
        _show(outlook(session, policy))
    if not yes:
        typer.confirm(f"Put {policy.name} in force? Bytes that it releases are deleted for good.", abort=True)
    with database().begin() as session:
        draft = rows.keep_draft(session, policy.name, policies.digest(toml), toml, BY_HAND)
        rows.activate(session, draft, BY_HAND)
        told = {"policy": policy.name, "sha256": draft.sha256}
        audit.record(session, BY_HAND, "retention.activate", str(draft.id), detail=told)
    out.print(f"{policy.name} is in force.")


@app.command()
def retire() -> None:
    """Take the policy out of force: from then on everything is kept."""
    schema.require_usable(database())
    with database().begin() as session:
        active = rows.in_force(session)
        if active is None:
            raise ConfigurationError("No retention policy is in force.", cure="Everything is kept already.")
        rows.retire(session)
        audit.record(session, BY_HAND, "retention.retire", str(active.id), detail={"policy": active.name})
    out.print(f"{active.name} is out of force; everything is kept.")


@app.command()
def due() -> None:
    """What the policy in force releases now, and what is old enough but protected. Changes nothing."""
    schema.require_usable(database())
    with database().read() as session:
        active = rows.in_force(session)
        if active is None:
            out.print("No retention policy is in force: everything is kept.")
            return
        _show(outlook(session, policies.parse(active.toml)))


@app.command()
def run(yes: Yes = False) -> None:
    """Release now what the policy in force releases, instead of waiting for the sweeper."""
    logs.configure("retention")
    schema.require_usable(database())
    with database().read() as session:
        active = rows.in_force(session)
        found = outlook(session, policies.parse(active.toml)) if active else Outlook()
    _show(found)
    if not found.due:
        return
    if not yes:
        typer.confirm("Delete these bytes for good?", abort=True)
    with progress("Releasing", len(found.due)) as advance:
        count = release_due(archive(), database(), BY_HAND, advance)
    out.print(f"{count} {'study' if count == 1 else 'studies'} released.")


@app.command()
def hold(
    study: Study, reason: Annotated[str, typer.Option(help="Why, for whoever asks later.", parser=reason_of)]
) -> None:
    """Place a legal hold on a study: no policy releases its bytes until it is lifted."""
    schema.require_usable(database())
    with database().begin() as session:
        found = studies.brief(session, study)
        rows.place_hold(session, found, reason, BY_HAND)
        audit.record(session, BY_HAND, "retention.hold", study, detail={"reason": reason})
    out.print("Held.")


@app.command()
def lift(study: Study) -> None:
    """Lift a study's legal hold."""
    schema.require_usable(database())
    with database().begin() as session:
        rows.lift_hold(session, studies.brief(session, study), BY_HAND)
        audit.record(session, BY_HAND, "retention.lift", study)
    out.print("Lifted.")


@app.command()
def holds() -> None:
    """Which studies are under legal hold."""
    schema.require_usable(database())
    table = Table("Study Instance UID", "Since", "By", "Reason")
    with database().read() as session:
        for study, held in rows.standing_holds(session):
            since = str(day_of(held.placed_at))
            table.add_row(*map(escape, (study.study_instance_uid, since, held.placed_by, held.reason)))
    paper().print(table)


def _show(found: Outlook) -> None:
    table = Table("Study Instance UID", "Last image", "Rule", "Images", "MB")
    for each in found.due[:SHOWN]:
        last = str(day_of(each.last_received_at))
        table.add_row(each.study_instance_uid, last, escape(each.rule), str(each.instances), f"{each.octets / 1e6:.1f}")
    if found.due:
        paper().print(table)
    if len(found.due) > SHOWN:
        out.print(f"… and {len(found.due) - SHOWN} more")
    out.print(f"{len(found.due)} studies, {found.octets / 1e6:.1f} MB would be released.", highlight=False)
    for why, count in found.kept_back.most_common():
        err.print(f"{count} old enough, but {why}.", highlight=False)
