"""The house as a whole: start everything, migrate, examine."""

import time
from typing import Annotated

import typer
from rich.markup import escape

from service import doctor as physician
from service import logs
from service import up as supervision
from service.cli import samples
from service.cli.accounts import BY_HAND
from service.cli.console import err, out
from service.db import audit, schema, users
from service.db.session import database
from service.db.tables import Role
from service.settings import Settings, settings

app = typer.Typer()


@app.command()
def up(
    demo: Annotated[bool, typer.Option("--demo", help="Push sample studies and print their verdicts.")] = False,
) -> None:
    """Everything in one go: receiver, worker, sweeper and dashboard on the embedded defaults."""
    logs.configure("up")
    here = settings()
    supervision.require_free_ports(here)
    environment = supervision.environment(here) | (samples.environment() if demo else {})
    schema.migrate()
    supervisor = supervision.Supervisor(environment)
    with supervision.interruptible():
        try:
            supervisor.start()
            with err.status("Starting receiver, worker, sweeper and dashboard …"):
                supervision.wait_until_ready(here, supervisor)
            out.print(f"DICOM  {here.ae_title}@{here.dicom_host}:{here.dicom_port}")
            if demo:
                samples.push(here)
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
    supervision.make_data_dir(settings())
    schema.migrate()
    database().dispose()  # the last connection folds SQLite's log into its file, which may then be copied by itself
    out.print(f"Schema at {schema.newest()}.")


@app.command(name="samples")
def push_samples() -> None:
    """Push sample studies to this machine's receiver and print their verdicts; no report counts them."""
    from service.receive.peers import SYNTHETIC_AE_TITLE

    samples.push(settings(), calling_ae_title=SYNTHETIC_AE_TITLE)


@app.command()
def doctor() -> None:
    """Examine this machine and say what to do about whatever is wrong."""
    healthy = True
    for check in physician.examine(settings()):
        healthy &= check.ok
        mark = "[green]✓[/]" if check.ok else "[bold red]✗[/]"
        out.print(f"{mark} {check.name}: {escape(str(check))}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def selftest() -> None:
    """Send a synthetic study through the running house and say how long each step took; status 1 when one failed."""
    from service.deliver import selftest as through

    def tell(step: through.Step) -> None:
        mark = "[green]✓[/]" if step.ok else "[bold red]✗[/]"
        told = escape(f"{step.told} {step.cure}")
        out.print(f"{mark} {step.name}: {step.seconds:.3f} s {told}", highlight=False, soft_wrap=True)

    schema.require_usable(database())
    raise typer.Exit(0 if through.run(through.begin(BY_HAND), tell) else 1)


def sign_in_link(here: Settings) -> str:
    """A link that signs the administrator in once; whoever runs this machine may have it."""
    with database().begin() as session:
        user = users.find_user(session, "admin")
        if user is None:
            user = users.create_user(session, "admin", Role.ADMIN)
            audit.record(session, BY_HAND, "user.add", user.name, detail={"role": user.role.value})
        secret = users.make_one_time_sign_in(session, user)
        audit.record(session, BY_HAND, "user.one-time", user.name)
    return f"{supervision.public_address(here)}/sign-in/once?token={secret}"
