"""The first look: sample studies pushed through a real C-STORE, and what became of them."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from service.cli.console import err, out, progress
from service.compliance.outcome import FindingState
from service.db import instances, verdicts
from service.db.session import database
from service.db.tables import AnalysisState, Instance, VerdictRecord
from service.deliver.send import Node, send
from service.demo import sample_files
from service.settings import Settings

PATIENCE_S = 90
TERMINAL = (AnalysisState.DONE, AnalysisState.QUARANTINED)
UNMET = (FindingState.MISSING, FindingState.UNCERTAIN)


def push(here: Settings) -> None:
    """Send the sample studies to our own receiver, wait for their verdicts and print them."""
    node = Node(here.ae_title, "127.0.0.1", here.dicom_port)
    with tempfile.TemporaryDirectory() as folder:
        files = sample_files(Path(folder))
        with progress("Pushing sample studies", len(files)) as advance:
            sent = send(files, node, calling_ae_title="DEMO", on_sent=lambda _: advance())
    uids = [result.sop_instance_uid for result in sent if result.stored]
    with err.status("Waiting for their verdicts …"):
        _wait(uids)
    out.print(_table(uids))


def _wait(uids: Sequence[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with database().read() as session:
            found = instances.of_uids(session, uids)
            if all(instance.analyses[-1].state in TERMINAL for instance in found):
                return
        time.sleep(0.2)


def _table(uids: Sequence[str]) -> Table:
    """One row an image: its study, its verdict and the findings in words."""
    table = Table("Study", "Image", "Verdict", "Findings", title="Sample studies")
    with database().read() as session:
        for instance in instances.of_uids(session, uids):
            standing = verdicts.standing(session, instance.study_id, instance.id)
            table.add_row(
                instance.study.description or "(no description)",
                str(instance.instance_number or ""),
                standing.verdict.value if standing else "not yet",
                _words(instance, standing),
            )
    return table


def _words(instance: Instance, standing: VerdictRecord | None) -> str:
    """What is missing, or why the image was given up."""
    if standing is None:
        return instance.analyses[-1].reason
    return "\n".join(finding.sentence for finding in standing.findings if finding.state in UNMET)
