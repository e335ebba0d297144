"""Rule books: examine them before they judge anybody."""

from typing import Annotated

import typer

from service.cli.console import out
from service.compliance import rulebook as rulebooks

app = typer.Typer(no_args_is_help=True, help="Rule books.")


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped rule book.")],
) -> None:
    """Say whether a rule book can be used; errors name file, line and field."""
    book = rulebooks.load(file)
    out.print(f"{book.name} {book.version}: {len(book.requirements)} requirements, no errors.")
