"""The house as a whole: start everything, migrate, examine."""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy import select

from service import doctor as physician
from service import logs
from service import up as supervision
from service.cli.console import err, out, progress
from service.db import schema, users
from service.db.session import database
from service.db.tables import AnalysisState, Instance, Role, User
from service.deliver.send import Node, send
from service.settings import Settings, settings

app = typer.Typer()

DEMO_PATIENCE_S = 90


@app.command()
def up(
    demo: Annotated[
        bool, typer.Option("--demo", help="Push sample studies and print their verdicts.")
    ] = False,
) -> None:
    """Everything in one go: receiver, worker, sweeper and dashboard on the embedded defaults."""
    logs.configure("up")
    here = settings()
    environment = supervision.environment(here)
    schema.migrate()
    supervisor = supervision.Supervisor(environment)
    with supervision.interruptible():
        try:
            supervisor.start()
            with err.status("Starting receiver, worker, sweeper and dashboard …"):
                supervision.wait_until_ready(here, supervisor)
            out.print(f"DICOM  {here.ae_title}@{here.dicom_host}:{here.dicom_port}")
            if demo:
                _push_samples(here)
            out.print(f"Sign in once: {sign_in_link(here)}", soft_wrap=True)
            out.print(f"Dashboard  {supervision.address(here)}   (Ctrl-C stops everything)", soft_wrap=True)
            while True:
                supervisor.watch()
                time.sleep(0.5)
        except KeyboardInterrupt:
            err.print("Stopping …")
        finally:
            supervisor.stop()


@app.command()
def migrate() -> None:
    """Bring the database's schema up to this version."""
    settings().data_dir.mkdir(parents=True, exist_ok=True)
    schema.migrate()
    out.print(f"Schema at {schema.newest()}.")


@app.command()
def doctor() -> None:
    """Examine this machine and say what to do about whatever is wrong."""
    healthy = True
    for check in physician.examine(settings()):
        healthy &= check.ok
        mark = "[green]✓[/]" if check.ok else "[bold red]✗[/]"
        out.print(f"{mark} {check.name}: {check.answer}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if healthy else 1)


def sign_in_link(here: Settings) -> str:
    """A link that signs the administrator in once; whoever runs this machine may have it."""
    with database().begin() as session:
        user = session.scalar(select(User).where(User.name == "admin"))
        user = user or users.create_user(session, "admin", Role.ADMIN)
        token = users.make_one_time_sign_in(session, user)
    return f"{supervision.address(here)}/sign-in/once#{token}"


def _push_samples(here: Settings) -> None:
    from service.demo import sample_files

    node = Node(here.ae_title, "127.0.0.1", here.dicom_port)
    with tempfile.TemporaryDirectory() as folder:
        files = sample_files(Path(folder))
        with progress("Pushing sample studies", len(files)) as advance:
            sent = send(files, node, calling_ae_title="DEMO", on_sent=lambda _: advance())
    uids = [result.sop_instance_uid for result in sent if result.stored]
    with err.status("Waiting for their verdicts …"):
        _wait_for_verdicts(uids)
    out.print(_verdict_table(uids))


def _wait_for_verdicts(uids: list[str]) -> None:
    deadline = time.monotonic() + DEMO_PATIENCE_S
    terminal = {AnalysisState.DONE, AnalysisState.QUARANTINED}
    while time.monotonic() < deadline:
        with database().read() as session:
            instances = session.scalars(select(Instance).where(Instance.sop_instance_uid.in_(uids))).all()
            if all(one.analyses and one.analyses[-1].state in terminal for one in instances):
                return
        time.sleep(0.2)


def _verdict_table(uids: list[str]) -> Table:
    """One row an instance: study, verdict and the findings in words."""
    from service.db.verdicts import standing_verdict

    table = Table(title="Sample studies")
    for heading in ("Study", "Image", "Verdict", "Findings"):
        table.add_column(heading, overflow="fold")
    with database().read() as session:
        query = select(Instance).where(Instance.sop_instance_uid.in_(uids)).order_by(Instance.id)
        for instance in session.scalars(query):
            record = standing_verdict(session, instance.id)
            words = (
                [finding.sentence for finding in record.findings if finding.state in ("missing", "uncertain")]
                if record
                else []
            )
            table.add_row(
                instance.study.description or "(no description)",
                str(instance.instance_number or ""),
                record.verdict if record else instance.analyses[-1].reason or "not yet",
                "\n".join(words),
            )
    return table
