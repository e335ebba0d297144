"""One role each, for production; ``sonomark up`` starts all of them."""

import typer

from service import doctor, logs, telemetry, tracing
from service.archive.store import archive
from service.db import heartbeats, schema
from service.db.session import database
from service.errors import ConfigurationError, DatabaseAway, StorageError
from service.settings import settings

app = typer.Typer()
log = logs.get(__name__)


def _begin(role: str) -> None:
    logs.configure(role)
    tracing.configure(role)
    schema.require_usable(database())
    here = settings()
    try:
        archive().check()
    except StorageError as error:  # it may come back by itself, and instances can wait for it
        log.warning("archive away", reason=error.what, cure=error.cure)
    # No reasons to refuse images, but to call for somebody.
    for what, question in (("clock skew", doctor.clock), ("setting not heeded", doctor.spelling)):
        try:
            question(here)
        except ConfigurationError as error:
            log.warning(what, reason=error.what, cure=error.cure)
    telemetry.watch_disk(archive().free_bytes, here.disk_reserve_mb << 20)
    if here.metrics_port:
        telemetry.serve(here.metrics_host, here.metrics_port, lambda: _missing(role))


def _missing(role: str) -> dict[str, str]:
    """What keeps this role from being ready, by name: its process may live and yet not do its work."""
    try:
        with database().read() as session:
            alive = heartbeats.alive_here(session, role)
            suspended = heartbeats.suspended(session, role)
    except DatabaseAway as away:
        return {"database": away.what}
    if suspended:
        return {"storage": suspended}
    return {} if alive else {role: "no sign of life within ten seconds"}


@app.command()
def receive() -> None:
    """The DICOM door: accepts C-STORE until it is stopped."""
    from service.receive import scp

    _begin("receive")
    scp.serve()


@app.command()
def work() -> None:
    """The worker: restores frames, finds annotations, records verdicts."""
    from service.analyse import crew

    doctor.onnxruntime(settings())
    _begin("work")
    crew.work()


@app.command()
def sweep() -> None:
    """The sweeper: finds work lost on the way, judges studies that have settled."""
    from service.jobs import sweep as sweeper

    _begin("sweep")
    sweeper.sweep()


@app.command()
def review() -> None:
    """The dashboard and its API."""
    from service.review import app as dashboard

    _begin("review")
    dashboard.serve()
