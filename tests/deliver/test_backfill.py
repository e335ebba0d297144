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
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmwrite, examples
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, generate_uid
from pynetdicom import AE, evt
from sqlalchemy import select

from service.archive.store import archive
from service.db import days
from service.db.session import Database
from service.db.tables import Backfill, BackfillState, BackfillStudy
from service.deliver.backfill import Backfiller, Pace, Run, Wanted, Window
from service.deliver.query import FIND, GET
from service.deliver.send import Node, send
from service.errors import ConfigurationError, PeerError
from service.receive.contexts import TRANSFER_SYNTAXES
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


class OddPacs:
    """A PACS of few words: it tells no SOP classes, and is at a loss over one study."""

    def __init__(self, *kept: Dataset, lost: str = "") -> None:
        self.kept, self.lost = kept, lost
        ae = AE("ODD")
        for model in (FIND, GET):
            ae.add_supported_context(model)
        for sop_class in {str(dataset.SOPClassUID) for dataset in kept}:
            ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES), scu_role=True, scp_role=True)
        handlers: list[Any] = [(evt.EVT_C_FIND, self._find), (evt.EVT_C_GET, self._get)]
        self.server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    @property
    def node(self) -> Node:
        return Node("ODD", "127.0.0.1", self.server.socket.getsockname()[1])

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        level = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
        unique = level[asked.QueryRetrieveLevel]
        if unique != "StudyInstanceUID" and asked.StudyInstanceUID == self.lost:
            yield 0xC001, None
            return
        nameless = Dataset()
        nameless.RetrieveAETitle = "ODD"
        yield 0xFF00, nameless
        date = asked.get("StudyDate") or ""
        matching = [
            each
            for each in self.kept
            if (not date or each.StudyDate == date)
            and all(not asked.get(name) or asked.get(name) == each.get(name) for name in level.values())
        ]
        for uid in dict.fromkeys(str(each.get(unique)) for each in matching):
            found = Dataset()
            setattr(found, unique, uid)
            yield 0xFF00, found

    def _get(self, event: Any) -> Iterator[Any]:
        uids = event.identifier.SOPInstanceUID
        wanted = [uids] if isinstance(uids, str) else list(uids)
        found = [each for each in self.kept if each.SOPInstanceUID in wanted]
        yield len(found)
        for dataset in found:
            yield 0xFF00, dataset


def test_a_study_that_the_pacs_cannot_list_does_not_keep_the_others(db: Database) -> None:
    """Nor do answers without UIDs or classes; and what is kept in a rare syntax comes as well."""
    archive.cache_clear()
    first, second, third = (study("20260301", 1)[0] for _ in range(3))
    third.file_meta.TransferSyntaxUID = MPEG2MPML
    third.PixelData = encapsulate([os.urandom(100)])
    uids = sorted((first.StudyInstanceUID, second.StudyInstanceUID))
    odd = OddPacs(first, second, third, lost=uids[0])
    wanted = Wanted(odd.node, date(2026, 3, 1), date(2026, 3, 1), pace=Pace(1000.0, None))
    try:
        done = Backfiller(db, settings(), wanted).run()
        assert (done.studies, done.fetched, done.failed, done.finished) == (3, 2, 1, False)
        odd.lost = ""
        done = Backfiller(db, settings(), wanted).run()
        assert (done.studies, done.fetched, done.failed, done.finished) == (1, 1, 0, True)
    finally:
        odd.server.shutdown()
    rows = {row.sop_instance_uid: row.transfer_syntax_uid for row in instances(db)}
    assert len(rows) == 3 and rows[str(third.SOPInstanceUID)] == MPEG2MPML


def test_today_is_listed_again(db: Database) -> None:
    """A run that did not come to its end, and goes on later in the day, when more studies are there."""
    archive.cache_clear()
    today = datetime.now(days.zone()).date()
    early, late = (study(today.strftime("%Y%m%d"), 1)[0] for _ in range(2))
    odd = OddPacs(early, lost=early.StudyInstanceUID)
    wanted = Wanted(odd.node, today, today, pace=Pace(1000.0, None))
    try:
        assert not Backfiller(db, settings(), wanted).run().finished
        odd.kept, odd.lost = (early, late), ""
        done = Backfiller(db, settings(), wanted).run()
        assert (done.fetched, done.finished) == (2, True)
    finally:
        odd.server.shutdown()


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
    for wrong in ("8", "25:00-01:00", "a-b", "1-2-3", "20:00-20:00", "20:00Z-06:00Z"):
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
