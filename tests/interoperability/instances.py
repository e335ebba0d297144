"""One small DICOM file for every SOP class and transfer syntax that the door accepts for images."""

from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from service.receive.contexts import SECONDARY_CAPTURE, TRANSFER_SYNTAXES, ULTRASOUND
from tests.faults.images import new_uid

UNCOMPRESSED = (ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian)
CLASSES = {**ULTRASOUND, "1.2.840.10008.5.1.4.1.1.7": SECONDARY_CAPTURE["1.2.840.10008.5.1.4.1.1.7"]}
SIDE = 32


def write(folder: Path) -> dict[tuple[str, str], Path]:
    """The files by SOP class and transfer syntax. What stands in compressed ones nobody on the way decodes."""
    return {
        (sop_class, syntax): _file(folder / f"{number:02}-{place:02}.dcm", sop_class, syntax)
        for number, sop_class in enumerate(CLASSES)
        for place, syntax in enumerate(TRANSFER_SYNTAXES)
    }


def _file(path: Path, sop_class: str, syntax: str) -> Path:
    frame = bytes(range(256)) * (SIDE * SIDE // 256)
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID, data.SOPInstanceUID = sop_class, new_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = new_uid(), new_uid()
    data.StudyDate, data.StudyTime, data.StudyID, data.AccessionNumber = "20240102", "101112", "1", "1"
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Müller^Jörg", "1", "19700101", "O"
    data.Modality, data.SeriesNumber, data.InstanceNumber = "US", 1, 1
    data.Rows, data.Columns, data.SamplesPerPixel = SIDE, SIDE, 1
    data.PhotometricInterpretation, data.NumberOfFrames = "MONOCHROME2", "1"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = frame if syntax in UNCOMPRESSED else encapsulate([frame])
    data["PixelData"].VR = "OB" if syntax != ImplicitVRLittleEndian else "OW"
    data["PixelData"].is_undefined_length = syntax not in UNCOMPRESSED
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)
    return path
