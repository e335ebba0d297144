"""Damaged data sets through the reader that every sender's bytes go through, in this process."""

import signal
from collections import Counter
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from service.dicom.header import DEFLATED, parse_header
from service.errors import DicomError
from tests.faults.images import US_IMAGE, new_uid
from tests.fuzz.mutations import Mutator

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DEFLATED)
LONGEST_S = 5


class Hangs(Exception):
    """One input takes longer than any honest one."""


def samples() -> list[bytes]:
    """An ultrasound image with what real ones carry: sequences, regions, private elements, names in other scripts."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = US_IMAGE, new_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = new_uid(), new_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Canary^Patient", "CANARY-ID", "19700101"
    dataset.StudyDate, dataset.StudyTime, dataset.Modality = "20240101", "101010.123", "US"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-04000", "SRT", "Breast"
    dataset.AnatomicRegionSequence = Sequence([code])
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 32, 24
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.01
    dataset.SequenceOfUltrasoundRegions = Sequence([region, region])
    dataset.add_new(0x00110010, "LO", "PRIVATE CREATOR")
    dataset.add_new(0x00111001, "UN", b"\x01\x02\x03\x04")
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 24, 32, 1
    dataset.PhotometricInterpretation, dataset.NumberOfFrames = "MONOCHROME2", "1"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(24 * 32)
    dataset["PixelData"].VR = "OW"
    forms = [encode(dataset, True, True), encode(dataset, False, True), encode(dataset, False, False)]
    forms.append(encode(dataset, False, True, deflated=True))
    return [form for form in forms if form is not None]


def damage(inputs: int, seed: int, corpus: Path) -> Counter[str]:
    """Read so many damaged data sets in each of the syntaxes in turn; what became of them.

    An input that ends in anything but a header or a DicomError, or in a hang, is kept in ``corpus`` and raised.
    """
    mutator = Mutator(seed, samples())
    ends: Counter[str] = Counter()

    def ring(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for number in range(inputs):
            data = mutator.next()
            signal.alarm(LONGEST_S)
            try:
                parse_header(data, SYNTAXES[number % len(SYNTAXES)])
                ends["read"] += 1
            except DicomError:
                ends["refused"] += 1
            except BaseException:
                corpus.mkdir(parents=True, exist_ok=True)
                (corpus / f"{seed}-{number}").write_bytes(data)
                raise
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
    return ends
