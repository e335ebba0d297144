"""Rule books: examine them before they judge anybody."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from service.cli.console import out
from service.compliance import rulebook as rulebooks
from service.compliance.check import errors_among, lint
from service.compliance.examples import failures
from service.compliance.explain import rulebook_in_words

app = typer.Typer(no_args_is_help=True, help="Rule books.")
File = Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped rule book.")]

UNUSABLE = 1


@app.command()
def check(file: File) -> None:
    """Say whether a rule book can be used. Status 1 when it cannot; each problem names line, field and cure."""
    problems = lint(file, today=datetime.now(UTC).date())
    for problem in problems:
        typer.echo(problem.against(file) if problem.is_error else f"{problem.against(file)} (odd, but usable)")
    if errors_among(problems):
        raise typer.Exit(UNUSABLE)
    book = rulebooks.load(file)
    out.print(f"{book.name} {book.version}: {len(book.requirements)} requirements, no errors.")


@app.command()
def explain(file: File) -> None:
    """Say in words what a rule book requires, and of which images."""
    for line in rulebook_in_words(rulebooks.load(file)):
        typer.echo(line)


@app.command()
def test(file: File) -> None:
    """Judge a rule book's own examples. Status 1 when one is judged otherwise than it says."""
    book = rulebooks.load(file)
    failed = failures(book)
    for failure in failed:
        typer.echo(f"{failure.example}: {failure.what}")
    out.print(f"{len(book.examples) - len(failed)} of {len(book.examples)} examples are judged as they say.")
    if failed:
        raise typer.Exit(UNUSABLE)
