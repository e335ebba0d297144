"""Numbered ultrasound instances: exact bytes, so that a digest can be asked for wherever they end up."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from uuid import uuid4

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from tests.faults.ledger import Version

US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"
SIZES = ((64, 56), (128, 96), (128, 96), (128, 96), (320, 240), (640, 480), (1600, 1200))  # 10 KB to 6 MB


@dataclass(frozen=True)
class Image:
    """One instance as it goes over the wire."""

    uid: str
    data: bytes  # the data set, encoded in ``syntax``
    sop_class: str = US_IMAGE
    syntax: str = str(ExplicitVRLittleEndian)

    @cached_property
    def version(self) -> Version:
        return self.uid, sha256(self.data).hexdigest()


def image(uid: str = "", columns: int = 128, rows: int = 96, study: str = "", **elements: object) -> Image:
    """An RGB ultrasound image of random dots, as a cart would send it."""
    uid = uid or new_uid()
    study = study or new_uid()
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = US_IMAGE, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
    dataset.Modality, dataset.StudyDescription = "US", "Breast"
    dataset.PatientName, dataset.PatientID = "Canary^Patient", "CANARY-ID"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 3
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = random.randbytes(rows * columns * 3)
    dataset["PixelData"].VR = "OB"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    data = encode(dataset, is_implicit_vr=False, is_little_endian=True)
    assert data is not None
    return Image(uid, data, str(dataset.SOPClassUID))


def new_uid() -> str:
    """A UID that nobody else made (PS3.5 annex B.2)."""
    return f"2.25.{uuid4().int}"


def numbered(seed: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> Iterator[Image]:
    """Images without end: 1, 2, 3 … of studies of four, sizes drawn by ``seed``."""
    drawn = random.Random(seed)
    root = new_uid()
    number = 0
    while True:
        number += 1
        columns, rows = drawn.choice(sizes)
        yield image(f"{root}.{number}", columns, rows, study=f"{root}.0.{number // 4}", InstanceNumber=number)
