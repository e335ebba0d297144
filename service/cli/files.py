"""Files in, answers out: assess without any server, send to a DICOM node."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service import logs
from service.cli.answer import Answer, answers
from service.cli.console import err, paper, progress
from service.compliance import rulebook as rulebooks
from service.deliver.send import Node, Sent, dicom_files
from service.deliver.send import send as store
from service.errors import ConfigurationError
from service.settings import is_ae_title, settings

app = typer.Typer()

SOME_NOT_ASSESSED = 3


@app.command()
def assess(
    paths: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files, or folders of them.", exists=True)],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    rulebook: Annotated[str, typer.Option(help="Rule book: a name or a TOML file.")] = "",
) -> None:
    """The same analysis on files, without any server. Status 3 when some could not be assessed."""
    from service.analyse.pipeline import Pipeline

    logs.configure("assess")
    book = rulebooks.load(rulebook or settings().rulebook)
    files = _files_of(paths)
    failed = 0
    table = Table("File", "Verdict", "Annotations", "Findings")
    at_once = os.cpu_count() or 1
    with (
        Pipeline.of_settings(callers=at_once, asks_for_text=lambda: book.asks_for_text) as pipeline,
        progress("Assessing", len(files)) as advance,
    ):
        for found in answers(pipeline, book, files, at_once):
            failed += found["error"] is not None
            if as_json:
                typer.echo(json.dumps(found))
            else:
                verdict = found["verdict"] or "not assessed"
                table.add_row(*map(escape, (found["path"], verdict, _kinds(found), _words(found))))
            advance()
    if not as_json:
        paper().print(table)
    raise typer.Exit(SOME_NOT_ASSESSED if failed else 0)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders of them.", exists=True)],
    node: Annotated[str, typer.Argument(help="Where to: AET@HOST:PORT.")],
    calling: Annotated[str, typer.Option("--aet", help="Our own AE title.")] = "",
) -> None:
    """C-STORE files to a DICOM node, byte for byte. Status 1 when one was not stored."""
    files = _files_of(paths)
    calling = calling or settings().ae_title
    if not is_ae_title(calling):
        raise ConfigurationError(f"'{calling}' is no AE title.", cure="It has 1 to 16 ASCII characters, no backslash.")
    table = Table("File", "Status", "Reason")
    with progress("Sending", len(files)) as advance:

        def report(sent: Sent) -> None:
            status = "not sent" if sent.status is None else f"0x{sent.status:04X}"
            table.add_row(*map(escape, (str(sent.path), status, sent.reason)))
            advance()

        results = store(files, Node.parse(node), calling_ae_title=calling, on_sent=report)
    paper().print(table)
    stored = sum(result.stored for result in results)
    err.print(f"{stored} of {len(results)} stored.")
    raise typer.Exit(0 if stored == len(results) else 1)


def _files_of(paths: list[Path]) -> list[Path]:
    """Raises ConfigurationError where there is none: nothing would be done, and read as done well."""
    files = list(dicom_files(paths))
    if not files:
        raise ConfigurationError(f"There is no file in {', '.join(map(str, paths))}.", cure="Name another folder.")
    return files


def _kinds(found: Answer) -> str:
    """What was found, each kind once."""
    return ", ".join(sorted({mark["kind"] for frame in found["frames"] for mark in frame["annotations"]}))


def _words(found: Answer) -> str:
    """The error, or the findings that are not met."""
    unmet = [one["sentence"] for one in found["findings"] if one["state"] in ("missing", "uncertain")]
    return found["error"] or "\n".join(unmet)
