"""Rule books: examine them before they judge anybody, keep versions, put one in force, judge again by it."""

from getpass import getuser
from time import sleep
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy.orm import Session

from service.cli.accounts import BY_HAND, reason_of
from service.cli.console import out, paper, progress
from service.cli.report import day, in_order
from service.compliance import rulebook as rulebooks
from service.compliance.check import errors_among, lint
from service.compliance.examples import failures
from service.compliance.explain import rulebook_in_words
from service.db import audit, reevaluations, schema
from service.db import rulebooks as versions
from service.db.days import end_of, start_of, today
from service.db.reevaluations import Range
from service.db.session import database
from service.errors import NotFound
from service.jobs import reevaluate as jobs

app = typer.Typer(no_args_is_help=True, help="Rule books.")
File = Annotated[str, typer.Argument(help="A TOML file, or the name of a shipped rule book.")]

UNUSABLE = 1
MOST = 2**31 - 1  # what any database takes for a number
DIGITS = 12  # of a digest, as a rule book's label shows them


@app.command()
def check(file: File) -> None:
    """Say whether a rule book can be used. Status 1 when it cannot; each problem names line, field and cure."""
    problems = lint(file, today=today())
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


@app.command("list")
def list_versions() -> None:
    """Every kept version, newest first; ``save --based-on`` takes the digest shown here."""
    schema.require_usable(database())
    with database().read() as session:
        kept = versions.versions(session)
        judging = versions.in_force_now(session).sha256
    table = Table("id", "name", "version", "digest", "kept by", "kept at (UTC)", "")
    for each in kept:
        state = "in force" if each.sha256 == judging else ""
        row = (str(each.id), each.name, each.version, each.sha256[:DIGITS], each.created_by or "the settings")
        table.add_row(*map(escape, row), f"{each.created_at:%Y-%m-%d %H:%M}", state)
    paper().print(table)


@app.command()
def save(
    file: File,
    based_on: Annotated[
        str, typer.Option(help="Digest of the version it was edited from: refused if somebody saved a newer one since.")
    ] = "",
) -> None:
    """Keep a rule book as a version, as the dashboard does; it judges nobody before it is put in force."""
    text = rulebooks.load(file).toml
    schema.require_usable(database())
    with database().begin() as session:
        base = _by_digest(session, based_on) if based_on else None
        kept = versions.save(session, text, getuser(), based_on=base)
        audit.record(session, BY_HAND, "rulebook.save", kept.sha256, detail={"name": kept.name})
    out.print(f"{kept.name} {kept.version} is kept as number {kept.id}, digest {kept.sha256[:DIGITS]}.")


@app.command()
def activate(
    number: Annotated[int, typer.Argument(min=1, max=MOST, help="Its id in `rules list`.")],
    reason: Annotated[str, typer.Option(help="Why; the audit trail keeps it.", parser=reason_of)],
) -> None:
    """Put a version in force: it judges every study from now on. Refused when it contradicts itself."""
    schema.require_usable(database())
    with database().begin() as session:
        found = versions.activate(session, number, getuser())
        detail = {"name": found.name, "version": found.version, "reason": reason}
        audit.record(session, BY_HAND, "rulebook.activate", found.sha256, detail=detail)
    out.print(f"{found.name} {found.version} is in force.")


@app.command()
def reevaluate(
    first_day: Annotated[str, typer.Option("--from", help="First day, 2026-01-31, of the last image.")] = "",
    last_day: Annotated[str, typer.Option("--to", help="Last day, included.")] = "",
    what_if: Annotated[str, typer.Option(help="A draft to try instead: a TOML file; nothing is written.")] = "",
    last: Annotated[int | None, typer.Option(min=1, max=MOST, help="Only the last so many studies.")] = None,
) -> None:
    """Judge studies again from stored annotations by the rule book in force, or see what a draft would change."""
    schema.require_usable(database())
    db, start, end = database(), day(first_day), day(last_day)
    in_order(start, end)
    which = Range(start_of(start) if start else None, end_of(end) if end else None, last)
    with db.begin() as session:
        book = rulebooks.load(what_if) if what_if else versions.in_force(session)
        kept = versions.keep(session, book, getuser())
        asked = jobs.ask(session, kept.id, which, getuser(), records=not what_if)
        detail = {"rulebook": kept.id, "records": not what_if}
        audit.record(session, BY_HAND, "reevaluation.ask", str(asked.id), detail=detail)
    with progress("Judging", asked.total) as advance:
        done = 0
        while asked.finished_at is None and asked.cancelled_at is None:
            with db.begin() as session:
                moved = jobs.step(session, asked.id)
                asked = reevaluations.get(session, asked.id)
            for _ in range(asked.done - done):
                advance()
            done = asked.done
            if not moved:
                sleep(0.2)  # a worker is at it
    for change, what in sorted((asked.changes or {}).items()):
        before, after = change.split(">")
        out.print(f"{what['count']} studies: {before} → {after}")
    out.print(f"{asked.done} studies judged by {book.name} {book.version}{', nothing written' if what_if else ''}.")


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


def _by_digest(session: Session, begins: str) -> str:
    """The whole digest of the one kept version whose digest begins so."""
    found = [each.sha256 for each in versions.versions(session) if each.sha256.startswith(begins)]
    if len(found) != 1:
        raise NotFound(
            f"{len(found)} kept versions have a digest that begins with '{begins}'.",
            cure="`sonomark rules list` shows them; give as much of one as only it begins with.",
        )
    return found[0]
