"""Files in, answers out: assess without any server, send to a DICOM node."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from service import logs
from service.cli.console import err, out, progress
from service.compliance import rulebook as rulebooks
from service.deliver.send import Node, Sent, dicom_files
from service.deliver.send import send as store
from service.settings import settings

app = typer.Typer()

SOME_NOT_ASSESSED = 3


@app.command()
def assess(
    paths: Annotated[
        list[Path], typer.Argument(help="DICOM, PNG or JPEG files, or folders of them.", exists=True)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    rulebook: Annotated[str, typer.Option(help="Rule book: a name or a TOML file.")] = "",
) -> None:
    """The same analysis on files, without any server. Status 3 when some could not be assessed."""
    from service.analyse.pipeline import Pipeline
    from service.analyse.restoration import load_network

    logs.configure("assess")
    book = rulebooks.load(rulebook or settings().rulebook)
    files = list(dicom_files(paths))
    failed = 0
    table = Table("File", "Verdict", "Annotations", "Findings")
    with Pipeline(load_network(settings())) as pipeline, progress("Assessing", len(files)) as advance:
        for path in files:
            answer = _assess(pipeline, book, path)
            failed += answer["error"] is not None
            if as_json:
                typer.echo(json.dumps(answer))
            else:
                table.add_row(*_row(answer))
            advance()
    if not as_json:
        out.print(table)
    raise typer.Exit(SOME_NOT_ASSESSED if failed else 0)


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files or folders of them.", exists=True)],
    node: Annotated[str, typer.Argument(help="Where to: AET@HOST:PORT.")],
    calling: Annotated[str, typer.Option("--aet", help="Our own AE title.")] = "",
) -> None:
    """C-STORE files to a DICOM node, byte for byte. Status 1 when one was not stored."""
    files = list(dicom_files(paths))
    table = Table("File", "Status", "Reason")
    with progress("Sending", len(files)) as advance:

        def report(sent: Sent) -> None:
            table.add_row(
                str(sent.path), "not sent" if sent.status is None else f"0x{sent.status:04X}", sent.reason
            )
            advance()

        results = store(
            files, Node.parse(node), calling_ae_title=calling or settings().ae_title, on_sent=report
        )
    out.print(table)
    stored = sum(result.stored for result in results)
    err.print(f"{stored} of {len(results)} stored.")
    raise typer.Exit(0 if stored == len(results) else 1)
