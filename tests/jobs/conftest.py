"""A house with workers, a real Redis, ultrasound instances."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from service.archive.store import archive
from service.db.session import Database, database
from service.db.tables import Base, Instance, Series, Study
from service.jobs import enqueue
from service.settings import Settings, settings
from tests.faults.servers import Redis
from tests.tiny_network import YELLOW, write_weights
from tests.working_house import WorkingHouse

US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def make_house(
    house: Settings, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., WorkingHouse]]:
    """Make the house with further settings; whatever was started ends with the test."""
    made: list[WorkingHouse] = []

    def make(**more: str) -> WorkingHouse:
        chosen = {"NETWORK": str(weights), "WORKERS": "1", "SWEEP_INTERVAL_S": "0.2", "STUDY_SETTLE_S": "0.5", **more}
        for name, value in chosen.items():
            monkeypatch.setenv(f"SONOMARK_{name}", value)
        for cached in (settings, database, archive):
            cached.cache_clear()
        Base.metadata.create_all(database().engine)
        logs = tmp_path / "logs"
        logs.mkdir(exist_ok=True)
        made.append(WorkingHouse(dict(os.environ), logs))
        return made[-1]

    enqueue._silent_until = 0.0
    yield make
    for one in made:
        one.stop_all()
    archive.cache_clear()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """A real Redis on a free port, without persistence."""
    server = Redis(tmp_path)
    yield server.url
    server.kill()


@pytest.fixture
def ultrasound(tmp_path: Path) -> Callable[..., Path]:
    """Makes an ultrasound instance, with a yellow cross on every frame or without."""

    def make(
        name: str = "one",
        frames: int = 1,
        marked: bool = True,
        transfer_syntax: str = ExplicitVRLittleEndian,
        **elements: object,
    ) -> Path:
        frame = np.full((96, 128, 3), 60, np.uint8)
        if marked:
            frame[40, 30:50] = frame[30:50, 40] = YELLOW
        data = Dataset()
        data.SOPClassUID, data.SOPInstanceUID = US_IMAGE, generate_uid(entropy_srcs=[name])
        data.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
        data.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
        data.Modality, data.StudyDescription = "US", "Breast"
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 96, 128, 3, "RGB"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation, data.PlanarConfiguration = 7, 0, 0
        if frames > 1:
            data.NumberOfFrames = frames
        data.PixelData = frame.tobytes() * frames
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = transfer_syntax
        path = tmp_path / f"{name}.dcm"
        data.save_as(path, enforce_file_format=True)
        return path

    return make


@pytest.fixture
def instance_rows(db: Database) -> Callable[[int], list[Instance]]:
    """Bare instance rows of one study, for what needs no bytes."""

    def make(count: int) -> list[Instance]:
        with db.begin() as session:
            study = Study(study_instance_uid=str(generate_uid()))
            series = Series(study=study, series_instance_uid=str(generate_uid()))
            session.add(series)
            session.flush()
            rows = [
                Instance(
                    study_id=study.id,
                    series_id=series.id,
                    sop_instance_uid=str(generate_uid()),
                    sop_class_uid=US_IMAGE,
                    transfer_syntax_uid=ExplicitVRLittleEndian,
                    sha256=f"{n:064d}",
                    size=1,
                    archive_key="none",
                )
                for n in range(count)
            ]
            session.add_all(rows)
        return rows

    return make
