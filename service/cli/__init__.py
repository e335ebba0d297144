"""The command line: ``sonomark --help``. Commands import their rooms when called, so that help is quick."""

import sys
from typing import Annotated

import typer

from service import __version__
from service.cli import accounts, archive, backfill, corrections, files, house, report, retention, roles, rules
from service.cli.console import err, out
from service.errors import SonomarkError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Checks that ultrasound images carry the annotations a hospital requires.",
)
for room in (house, roles, files, backfill, report, corrections):
    app.registered_commands += room.app.registered_commands
app.add_typer(accounts.app, name="user")
app.add_typer(rules.app, name="rules")
app.add_typer(accounts.audit_app, name="audit")
app.add_typer(archive.app, name="archive")
app.add_typer(retention.app, name="retention")


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit


def main() -> None:
    """A SonomarkError ends with its message and status 1; everything else is a defect and shows itself."""
    try:
        app()
    except SonomarkError as error:
        err.print("sonomark:", error.what, style="bold", markup=False, highlight=False, soft_wrap=True)
        if error.cure:
            err.print(error.cure, markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
