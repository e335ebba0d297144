"""Accounts and the audit trail, for whoever runs the machine itself."""

from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.cli.console import err, out, paper
from service.db import audit, schema, second_factors, users
from service.db.session import database
from service.db.tables import Role, now
from service.settings import settings

app = typer.Typer(no_args_is_help=True, help="Accounts.")
audit_app = typer.Typer(no_args_is_help=True, help="The audit trail.")

BY_HAND = "command line"
TAMPERED = "Keep the database as it is, find out who could write to it, and compare with a backup."


def reason_of(text: str) -> str:
    """A reason as the audit trail keeps it; one that says nothing is asked for again."""
    if not 3 <= len(text.strip()) <= 255:
        raise typer.BadParameter("say why in 3 to 255 characters")
    return text.strip()


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The user's name.")],
    role: Annotated[Role, typer.Option(help="What the account may do.")] = Role.SONOGRAPHER,
    site: Annotated[str, typer.Option(help="Only studies of this institution; empty means all.")] = "",
) -> None:
    """Make an account; asks for its password."""
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    schema.require_usable(database())
    with database().begin() as session:
        users.create_user(session, name, role, password, site)
        audit.record(session, BY_HAND, "user.add", name, detail={"role": role.value})
    out.print(f"{name} may sign in as {role.value}.")


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="The account; made if it is missing.")],
    role: Annotated[Role, typer.Option(help="Role of an account made now.")] = Role.ADMIN,
    scope: Annotated[
        str, typer.Option(help="store, read, review or admin; never more than the role allows.")
    ] = "admin",
    days: Annotated[int, typer.Option(min=1, max=36_525, help="Days until the token expires.")] = 90,
) -> None:
    """Print a bearer token for the API, alone on the last line."""
    schema.require_usable(database())
    made = False
    with database().begin() as session:
        user = users.find_user(session, name)
        if user is None:
            user = users.create_user(session, name, role)
            made = True
            audit.record(session, BY_HAND, "user.add", name, detail={"role": role.value})
        secret = users.make_api_token(session, user, BY_HAND, scope, now() + timedelta(days=days))
        audit.record(session, BY_HAND, "token.add", name, detail={"scope": scope, "days": days})
    if made:
        err.print(f"Made the account {name} ({role.value}).", highlight=False)
    typer.echo(secret)


@app.command(name="sign-in")
def sign_in(name: Annotated[str, typer.Argument(help="An existing account.")]) -> None:
    """Print a link that signs the user in once, within the hour."""
    from service.up import public_address

    schema.require_usable(database())
    with database().begin() as session:
        secret = users.make_one_time_sign_in(session, users.get_user(session, name))
        audit.record(session, BY_HAND, "user.one-time", name)
    typer.echo(f"{public_address(settings())}/sign-in/once?token={secret}")


@app.command(name="reset-second-factor")
def reset_second_factor(name: Annotated[str, typer.Argument(help="An existing account.")]) -> None:
    """Take away the second factor of somebody who lost it, and end the account's sessions."""
    schema.require_usable(database())
    with database().begin() as session:
        user = users.get_user(session, name)
        second_factors.remove(session, user)
        users.revoke_all(session, user)
        audit.record(session, BY_HAND, "user.reset-second-factor", name)
    out.print(f"{name} signs in by password alone now.")


@app.command(name="list")
def list_users() -> None:
    """Who has an account."""
    schema.require_usable(database())
    table = Table("Name", "Role", "State")
    with database().read() as session:
        for user in users.all_users(session):
            table.add_row(user.name, user.role.value, "disabled" if user.disabled_at else "active")
    paper().print(table)


@audit_app.command()
def verify(
    head: Annotated[str, typer.Option(help="A head printed earlier; it must still be in the chain.")] = "",
) -> None:
    """Recompute the hash chain of the audit trail; status 1 when it is broken."""
    schema.require_usable(database())
    with database().read() as session:
        check = audit.verify(session)
        cut_off = check.whole and head and not audit.holds(session, head)
    if cut_off:
        err.print(
            f"[bold red]The chain was cut off[/]: {escape(head)} is not in it, if it is typed as printed. {TAMPERED}",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    if not check.whole:
        err.print(
            f"[bold red]The chain is broken at event {check.broken_at}[/]: it was changed outside Sonomark. {TAMPERED}",
            soft_wrap=True,
        )
        raise typer.Exit(1)
    out.print(f"{check.events} events, chain whole, head {check.head}", soft_wrap=True)
