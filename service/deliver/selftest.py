"""The self-test: a synthetic study goes by C-STORE through the whole house, and each step's time is taken.

It calls by an AE title of its own, by which the receiver marks its study as synthetic: it counts in no report, is
judged without waiting for more images, and is removed afterwards.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.uid import generate_uid

from service import demo
from service.archive.store import archive
from service.db import selftests, worklist
from service.db.session import database
from service.db.tables import Analysis, AnalysisState, Instance, Study, now
from service.deliver.send import Node, send
from service.errors import PeerError, SonomarkError, StorageError
from service.settings import Settings, settings

AE_TITLE = "SONOMARK_TEST"
FRAME, MARK = "breast-calipers.jpg", "caliper"  # what is sent, and what the network must see on it
LIKELY = 0.5
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.02
STEPS = ("C-STORE", "archived", "claimed", "decoded", "network", "judged", "worklist", "removed")

Seen = tuple[Study, Instance, Analysis | None]


@dataclass(slots=True)
class Step:
    """One step: how long it took, or what kept it from happening and what to do."""

    name: str
    seconds: float
    ok: bool = True
    told: str = ""
    cure: str = ""


class Failed(PeerError):
    """A step of the self-test did not happen."""


def begin(asked_by: str) -> int:
    """The number of a self-test that is about to run. What an earlier one left behind goes first."""
    with database().read() as session:
        left = selftests.cut_off(session)
    for uid in left:
        _remove(uid)
    with database().begin() as session:
        return selftests.begin(session, asked_by, generate_uid()).id


def run(number: int, on_step: Callable[[Step], None] = lambda _: None) -> bool:
    """Send, follow and remove the study of a self-test, writing down every step; whether all went well."""
    with database().read() as session:
        test = selftests.get(session, number)
    if test is None:
        raise Failed(f"There is no self-test {number}.")
    steps: list[Step] = []

    def took(step: Step) -> None:
        steps.append(step)
        with database().begin() as session:
            row = selftests.get(session, number)
            if row is not None:
                row.steps = [asdict(each) for each in steps]
        on_step(step)

    uid = test.study_instance_uid
    try:
        with _file(uid, number) as file:
            _through_the_house(file, uid, number, took)
    except SonomarkError as error:
        took(Step(STEPS[len(steps)], 0.0, False, error.what, error.cure))
    finally:
        took(_remove(uid))
        with database().begin() as session:
            row = selftests.get(session, number)
            if row is not None:
                row.finished_at = now()
    return all(step.ok for step in steps)


def node(chosen: Settings) -> Node:
    """The receiver that the self-test calls."""
    if chosen.selftest_node:
        return Node.parse(chosen.selftest_node)
    return Node(chosen.ae_title, "127.0.0.1", chosen.dicom_port)


def _through_the_house(file: Path, uid: str, number: int, took: Callable[[Step], None]) -> None:
    began = time.monotonic()
    took(_store(file))
    arrived = _until(lambda seen: seen is not None, uid, "It was acknowledged and is not in the database.")
    took(_archived(arrived, began))
    claimed = _until(_is_claimed, uid, "No worker came for it.", "Is `sonomark work` alive, and is work not paused?")
    took(Step("claimed", _waited(claimed)))
    done = _until(_is_done, uid, "The worker did not finish.", "Look at the quarantine on the flow page.")
    for step in _assessed(done):
        took(step)
    judged = _until(lambda seen: seen is not None and seen[0].settled, uid, "The study was not judged.")
    verdict = judged[0].verdict.value if judged[0].verdict else "no verdict"
    finished = judged[2].finished_at if judged[2] else None
    took(Step("judged", _since(finished), told=verdict))
    looked = time.monotonic()
    with database().read() as session:
        page = worklist.page(session, worklist.Filter(tab="all", text=_accession(number)))
    if [row.study.study_instance_uid for row in page.rows] != [uid]:
        raise Failed("The worklist does not show it.")
    took(Step("worklist", time.monotonic() - looked))


def _store(file: Path) -> Step:
    began = time.monotonic()
    [sent] = send([file], node(settings()), calling_ae_title=AE_TITLE)
    if sent.status != 0:
        told = sent.reason or "refused" if sent.status is None else f"0x{sent.status:04X} {sent.reason}"
        raise Failed(f"The receiver did not store it: {told}.", cure=f"Let {AE_TITLE} send from this machine.")
    return Step("C-STORE", time.monotonic() - began, told="0x0000")


def _archived(seen: Seen, began: float) -> Step:
    """Seen from here: another machine's instance is in the bucket a moment after it was acknowledged."""
    key, deadline = seen[1].archive_key, time.monotonic() + PATIENCE_S
    while (archive().size(key) or 0) < seen[1].size:
        if time.monotonic() > deadline:
            told = "It is in the database and not whole in the archive."
            raise Failed(told, cure="Do all roles see the same archive?")
        time.sleep(LOOK_EVERY_S)
    return Step("archived", time.monotonic() - began, told=f"{seen[1].size} bytes")


def _assessed(seen: Seen) -> Iterator[Step]:
    analysis = seen[2]
    assert analysis is not None
    if analysis.state is AnalysisState.QUARANTINED:
        raise Failed(f"It was put into quarantine: {analysis.reason}", cure=analysis.cure)
    taken = {name: float(value) / 1000 for name, value in analysis.milliseconds.items()}
    yield Step("decoded", taken.get("decode", 0.0))
    score = max((float(frame.scores.get(MARK, 0.0)) for frame in analysis.frames), default=0.0)
    if score < LIKELY:
        raise Failed(
            f"The network {analysis.network} does not see the {MARK} it was shown ({score:.2f}).",
            cure="Compare the weights with their card on the models page.",
        )
    yield Step("network", taken.get("restore", 0.0), told=f"{MARK} {score:.2f}, {analysis.provider}")


def _remove(uid: str) -> Step:
    """The bytes first: what no row names any more would be registered again, and not as a self-test's."""
    began = time.monotonic()
    try:
        with database().read() as session:
            deleted = selftests.objects(session, uid)
        for key in deleted:
            _delete(key, began + PATIENCE_S)
        with database().begin() as session:
            left = set(selftests.remove(session, uid)) - set(deleted)
        for key in left:
            archive().delete(key)
    except SonomarkError as error:
        return Step("removed", time.monotonic() - began, False, error.what, error.cure)
    return Step("removed", time.monotonic() - began)


def _delete(key: str, deadline: float) -> None:
    """What is on its way to a bucket goes when it is there."""
    while True:
        try:
            archive().delete(key)
        except StorageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_EVERY_S)
        else:
            return


def _until(holds: Callable[[Seen | None], bool], uid: str, otherwise: str, cure: str = "") -> Seen:
    """What the house knows of the study once it is so; raises Failed after a minute."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with database().read() as session:
            seen = selftests.seen(session, uid)
        if holds(seen):
            assert seen is not None
            return seen
        time.sleep(LOOK_EVERY_S)
    raise Failed(f"{otherwise} It was waited for {PATIENCE_S:.0f} s.", cure=cure)


def _is_claimed(seen: Seen | None) -> bool:
    return seen is not None and seen[2] is not None and seen[2].claimed_at is not None


def _is_done(seen: Seen | None) -> bool:
    return seen is not None and seen[2] is not None and seen[2].finished_at is not None


def _waited(seen: Seen) -> float:
    """Seconds from the queue to the worker."""
    analysis = seen[2]
    if analysis is None or analysis.claimed_at is None:
        return 0.0
    return max(0.0, (analysis.claimed_at - analysis.queued_at).total_seconds())


def _since(at: datetime | None) -> float:
    return max(0.0, (now() - at).total_seconds()) if at else 0.0


def _accession(number: int) -> str:
    return f"SELFTEST-{number}"


@contextmanager
def _file(uid: str, number: int) -> Iterator[Path]:
    """The synthetic study's only instance as a file."""
    study = {
        "patient": "SELFTEST^SONOMARK",
        "patient_id": "SELFTEST",
        "accession": _accession(number),
        "description": "Breast ultrasound, right, lesion measurement",
        "body_part": "BREAST",
        "laterality": "R",
        "station": "SELFTEST",
        "operator": "SELFTEST^SONOMARK",
    }
    instance = demo.make_instance(study, FRAME)
    instance.StudyInstanceUID, instance.SeriesInstanceUID = uid, generate_uid()
    instance.StudyID, instance.SeriesNumber, instance.InstanceNumber = "1", "1", "1"
    with TemporaryDirectory(prefix="sonomark-selftest-") as folder:
        path = Path(folder) / "selftest.dcm"
        instance.save_as(path, enforce_file_format=True)
        yield path
