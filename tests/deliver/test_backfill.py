"""Old studies fetched from a real Orthanc: once each, only what is missing, and on from where a killed run stopped."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmwrite, examples
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select

from service.archive.store import archive
from service.db.session import Database
from service.db.tables import Backfill, BackfillState, BackfillStudy
from service.deliver.backfill import Backfiller, Pace, Run, Wanted, Window
from service.deliver.send import Node, send
from service.errors import ConfigurationError, PeerError
from service.settings import Settings, settings
from tests.archive.test_verify import _stamp
from tests.deliver.test_orthanc import ORTHANC
from tests.ports import free_port
from tests.receive.conftest import StartReceiver, instances, ultrasound
from tests.receive.conftest import start_receiver as start_receiver


@dataclass
class Pacs:
    """An Orthanc that lets SONOMARK find, get and move; our receiver is to listen on ``our_port``."""

    dicom: int
    http: int
    our_port: int
    folder: Path

    @property
    def node(self) -> Node:
        return Node("ORTHANC", "127.0.0.1", self.dicom)

    def keep(self, *datasets: Dataset) -> None:
        """Store these in the PACS."""
        files = []
        for dataset in datasets:
            files.append(self.folder / f"{dataset.SOPInstanceUID}.dcm")
            dcmwrite(files[-1], dataset, enforce_file_format=True)
        assert all(sent.stored for sent in send(files, self.node))


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    if ORTHANC is None:
        pytest.skip("orthanc is not installed")
    found = Pacs(free_port(), free_port(), free_port(), tmp_path)
    config = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "DicomAet": "ORTHANC",
        "DicomPort": found.dicom,
        "HttpPort": found.http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"sonomark": ["SONOMARK", "127.0.0.1", found.our_port]},
        "Plugins": [],
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    server = subprocess.Popen(
        [ORTHANC, str(tmp_path / "orthanc.json")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TCP_NODELAY": "1"},
    )
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{found.http}/system", timeout=1)
            break
        except OSError:
            time.sleep(0.1)
    archive.cache_clear()
    yield found
    archive.cache_clear()
    server.terminate()
    server.wait(20)


def study(day: str, images: int, **elements: object) -> list[Dataset]:
    common = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid(), "StudyDate": day}
    return [ultrasound(**common, InstanceNumber=number, **elements) for number in range(1, images + 1)]


def run(db: Database, pacs: Pacs, *, last: date = date(2026, 3, 2), **more: object) -> Run:
    wanted = Wanted(pacs.node, date(2026, 3, 1), last, pace=Pace(1000.0, None), **more)  # type: ignore[arg-type]
    return Backfiller(db, settings(), wanted).run()


def test_everything_once_and_later_only_what_is_missing(db: Database, pacs: Pacs) -> None:
    first, second, outside = study("20260301", 3), study("20260302", 12), study("20260303", 2)
    compressed = examples.ybr_color
    compressed.SOPClassUID = compressed.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    compressed.StudyDate = "20260302"
    pacs.keep(*first, *second, *outside, compressed)
    done = run(db, pacs)
    assert (done.studies, done.listed, done.fetched, done.failed, done.finished) == (3, 16, 16, 0, True)
    rows = instances(db)
    assert {row.sop_instance_uid for row in rows} == {str(d.SOPInstanceUID) for d in [*first, *second, compressed]}
    assert all(len(row.analyses) == 1 and archive().exists(row.archive_key) for row in rows)
    kept = next(row for row in rows if row.sop_instance_uid == compressed.SOPInstanceUID)
    assert kept.transfer_syntax_uid == compressed.file_meta.TransferSyntaxUID  # as the PACS keeps it

    again = run(db, pacs)
    assert (again.studies, again.listed, again.fetched, again.finished) == (3, 16, 0, True)
    late = ultrasound(
        StudyInstanceUID=first[0].StudyInstanceUID, SeriesInstanceUID=first[0].SeriesInstanceUID, StudyDate="20260301"
    )
    pacs.keep(late)
    assert run(db, pacs).fetched == 1
    assert len(instances(db)) == 17


def test_other_modalities_stay_where_they_are(db: Database, pacs: Pacs) -> None:
    pacs.keep(*study("20260301", 1), *study("20260301", 1, Modality="OT"))
    assert run(db, pacs).listed == 1
    assert run(db, pacs, modality="").listed == 2


def test_c_move_comes_in_by_the_receiver(db: Database, pacs: Pacs, start_receiver: StartReceiver) -> None:
    start_receiver(DICOM_PORT=str(pacs.our_port))
    pacs.keep(*study("20260301", 11), *study("20260302", 2))
    done = run(db, pacs, method="move")
    assert (done.fetched, done.failed, done.finished) == (13, 0, True)
    assert {row.calling_ae_title for row in instances(db)} == {"ORTHANC"}


def test_what_does_not_come_is_said_and_tried_again(db: Database, pacs: Pacs, start_receiver: StartReceiver) -> None:
    pacs.keep(*study("20260301", 2))
    failed = run(db, pacs, method="move")  # nobody listens on our port
    assert (failed.fetched, failed.failed, failed.finished) == (0, 1, False)
    with db.read() as session:
        row = session.scalars(select(BackfillStudy)).one()
        assert row.state is BackfillState.FAILED and row.reason
    assert run(db, pacs).finished
    with db.read() as session:
        assert session.scalars(select(Backfill)).one().finished_at is not None  # the same one went on


def test_a_killed_run_goes_on(db: Database, pacs: Pacs, house: Settings) -> None:
    for _ in range(6):
        pacs.keep(*study("20260301", 2))
    from service.db import schema

    _stamp(schema.newest())
    command = [sys.executable, "-m", "service.cli", "backfill", str(pacs.node), "--from=2026-03-01", "--to=2026-03-02"]
    environment = os.environ | {"SONOMARK_DATA_DIR": str(house.data_dir), "COLUMNS": "200"}
    root = Path(__file__).resolve().parents[2]
    slow = subprocess.Popen([*command, "--rate=2"], env=environment, cwd=root, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(instances(db)) < 4:
        assert time.monotonic() < deadline and slow.poll() is None
        time.sleep(0.1)
    slow.send_signal(signal.SIGKILL)
    slow.wait()
    before = len(instances(db))
    assert before < 12
    rest = subprocess.run(
        [*command, "--rate=1000"], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert rest.returncode == 0, rest.stderr
    assert len(instances(db)) == 12 and f"{12 - before} fetched" in rest.stdout
    with db.read() as session:
        assert len(session.scalars(select(Backfill)).all()) == 1


def test_a_pacs_that_is_away_is_named(db: Database, tmp_path: Path) -> None:
    archive.cache_clear()
    nobody = Pacs(free_port(), 0, 0, tmp_path)
    with pytest.raises(PeerError, match="does not accept an association"):
        run(db, nobody)


def test_windows_over_midnight() -> None:
    night = Window.parse("20:00-06:00")
    assert night is not None and Window.parse("") is None
    assert [night.is_open(clock(hour)) for hour in (19, 20, 23, 0, 5, 6, 12)] == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]
    day = Window(clock(8), clock(17, 30))
    assert [day.is_open(clock(hour)) for hour in (7, 8, 17, 18)] == [False, True, True, False]
    for wrong in ("8", "25:00-01:00", "a-b", "1-2-3", "20:00-20:00"):
        with pytest.raises(ConfigurationError):
            Window.parse(wrong)


def test_a_window_is_of_the_hospitals_hours(
    hospital_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(seconds: float) -> None:
        raise TimeoutError(f"it would wait for {seconds} s")

    hospital_in("Asia/Kolkata")
    there = datetime.now(ZoneInfo("Asia/Kolkata"))
    around = [(there + timedelta(hours=by)).time() for by in (-1, 1)]
    monkeypatch.setattr("service.deliver.backfill.time.sleep", closed)
    Pace(100.0, Window(*around)).wait(1)
    with pytest.raises(TimeoutError):
        Pace(100.0, Window(*reversed(around))).wait(1)


def test_the_pace_is_kept() -> None:
    pace, began = Pace(100.0, None), time.monotonic()
    for _ in range(4):
        pace.wait(10)
    assert time.monotonic() - began >= 0.3 - 0.01
