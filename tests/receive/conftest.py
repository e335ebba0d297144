"""A real receiver process on a free port, and real senders."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import select

from service.db.session import Database
from service.db.tables import Instance
from service.deliver.association import associate
from service.settings import Settings

US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"


@dataclass
class RunningReceiver:
    """One receiver process."""

    environment: dict[str, str]
    log: Path
    before: str = ""  # code that runs in the process before the receiver does, to hold one of its threads up
    process: subprocess.Popen[bytes] = field(init=False)
    port: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self, **more: str) -> None:
        with self.log.open("ab") as log:
            began = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{self.before}\nfrom service.receive.scp import serve; serve()"],
                env=self.environment | more,
                stderr=log,
            )
        try:
            self.port = int(self.wait_for(r"listening.*port[^0-9]*(\d+)", began).group(1))
        except BaseException:
            self.kill()  # or it would outlive the test that it failed
            raise

    def wait_for(self, pattern: str, after: int = 0, timeout: float = 30) -> re.Match[str]:
        """Wait for a line of the log."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text(errors="replace")[after:])
            if found:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no {pattern!r} in the log:\n{self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def associate(self, *contexts: tuple[str, str], ae_title: str = "US01", called: str = "SONOMARK") -> Association:
        """An association of pynetdicom as sender."""
        ae = AE(ae_title=ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 40
        for sop_class, syntax in contexts or ((US_IMAGE, ExplicitVRLittleEndian),):
            ae.add_requested_context(sop_class, syntax)
        return associate(ae, "127.0.0.1", self.port, ae_title=called)

    def store(self, *datasets: Dataset, ae_title: str = "US01") -> list[int | None]:
        """C-STORE each; the status, None when no answer came."""
        syntax = datasets[0].file_meta.TransferSyntaxUID
        association = self.associate((str(datasets[0].SOPClassUID), syntax), ae_title=ae_title)
        assert association.is_established
        try:
            return [association.send_c_store(dataset).get("Status") for dataset in datasets]
        finally:
            association.release()


StartReceiver = Callable[..., RunningReceiver]


@pytest.fixture
def start_receiver(house: Settings, db: Database, tmp_path: Path) -> Iterator[StartReceiver]:
    """Start receivers with further settings, for instance ``start_receiver(PEERS="US01")``."""
    running: list[RunningReceiver] = []

    def start(before: str = "", **more: str) -> RunningReceiver:
        environment = os.environ | {
            "SONOMARK_DATA_DIR": str(house.data_dir),
            "SONOMARK_DICOM_PORT": "0",
            "SONOMARK_DICOM_HOST": "127.0.0.1",
            "SONOMARK_DISK_RESERVE_MB": "0",
            "SONOMARK_TESTING": "1",
            **{f"SONOMARK_{name}": value for name, value in more.items()},
        }
        receiver = RunningReceiver(environment, tmp_path / f"receive{len(running)}.log", before)
        running.append(receiver)
        return receiver

    yield start
    for receiver in running:
        if receiver.process.poll() is None:
            receiver.kill()


@pytest.fixture
def receiver(start_receiver: StartReceiver) -> RunningReceiver:
    return start_receiver()


def ultrasound(**elements: Any) -> Dataset:
    """A small ultrasound image as a cart would send it."""
    dataset = Dataset()
    dataset.SOPClassUID = US_IMAGE
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "US"
    dataset.PatientName = "Canary^Patient"
    dataset.PatientID = "CANARY-ID"
    dataset.Rows, dataset.Columns = 32, 48
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = os.urandom(32 * 48)
    dataset["PixelData"].VR = "OB"
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def instances(db: Database) -> list[Instance]:
    """All rows, oldest first, with their studies and analyses loaded."""
    with db.read() as session:
        rows = list(session.scalars(select(Instance).order_by(Instance.id)))
        for row in rows:
            _ = row.study, row.analyses
        return rows
