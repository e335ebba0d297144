"""The first look: sample studies pushed through a real C-STORE, and what became of them."""

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from service.cli.console import err, out, progress
from service.compliance.outcome import FindingState
from service.db import instances, verdicts
from service.db.session import database
from service.db.tables import Instance, VerdictRecord
from service.deliver.send import Node, send
from service.demo import sample_files
from service.settings import Settings

PATIENCE_S = 90
# A first look should not wait half a minute for a study to settle, nor drown its table in log lines.
FOR_A_FIRST_LOOK = {"SONOMARK_STUDY_SETTLE_S": "3", "SONOMARK_LOG_LEVEL": "warning"}
UNMET = (FindingState.MISSING, FindingState.UNCERTAIN)


def environment() -> dict[str, str]:
    """What differs under ``--demo``, unless the caller has set it."""
    return {name: value for name, value in FOR_A_FIRST_LOOK.items() if name not in os.environ}


def push(here: Settings, calling_ae_title: str = "DEMO") -> None:
    """Send the sample studies to our own receiver, wait for their verdicts and print them."""
    node = Node(here.ae_title, "127.0.0.1", here.dicom_port)
    with tempfile.TemporaryDirectory() as folder:
        files = sample_files(Path(folder))
        with progress("Pushing sample studies", len(files)) as advance:
            sent = send(files, node, calling_ae_title=calling_ae_title, on_sent=lambda _: advance())
    uids = [result.sop_instance_uid for result in sent if result.stored]
    with err.status("Waiting for their verdicts …"):
        _wait(uids)
    out.print(_table(uids))


def _wait(uids: Sequence[str]) -> None:
    """Until every study that the samples belong to is judged."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with database().read() as session:
            if all(instance.study.settled for instance in instances.of_uids(session, uids)):
                return
        time.sleep(0.2)


def _table(uids: Sequence[str]) -> Table:
    """One row a study, and below it one an image: the verdict, and in words what is missing."""
    table = Table("Study", "Image", "Verdict", "Findings", title="Sample studies")
    with database().read() as session:
        studies: dict[int, list[Instance]] = {}
        for instance in instances.of_uids(session, uids):
            studies.setdefault(instance.study_id, []).append(instance)
        for study_id, images in studies.items():
            judged = verdicts.standing(session, study_id)
            description = images[0].study.description or "(no description)"
            verdict = f"[bold]{judged.verdict.value}[/]" if judged else "not yet"
            table.add_row(description, "", verdict, _words(judged))
            for image in images:
                own = verdicts.standing(session, study_id, image.id)
                number = "" if image.instance_number is None else str(image.instance_number)
                table.add_row("", number, own.verdict.value if own else image.analyses[-1].state.value, "")
            table.add_section()
    return table


def _words(judged: VerdictRecord | None) -> str:
    """What is missing or uncertain, one sentence a line."""
    findings = judged.findings if judged else []
    return "\n".join(finding.sentence for finding in findings if finding.state in UNMET)
