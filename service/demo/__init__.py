"""Sample studies for a first look: real frames, made-up identities, and ultrasound of pydicom's wheel."""

import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from pydicom import examples
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, UltrasoundImageStorage, generate_uid

HERE = Path(__file__).resolve().parent
FROM_PYDICOM = ("rgb_color", "jpeg2k", "ybr_color")


def sample_files(folder: Path) -> list[Path]:
    """Write the sample studies into ``folder`` as DICOM files and return these and pydicom's own."""
    studies = tomllib.loads((HERE / "studies.toml").read_text())["study"]
    written = [path for number, study in enumerate(studies, 1) for path in _write_study(study, number, folder)]
    return written + [Path(examples.get_path(name)) for name in FROM_PYDICOM]


def _write_study(study: dict[str, Any], number: int, folder: Path) -> Iterator[Path]:
    study_uid, series_uid = generate_uid(), generate_uid()
    for index, name in enumerate(study["frames"], 1):
        instance = make_instance(study, name)
        instance.StudyInstanceUID, instance.SeriesInstanceUID = study_uid, series_uid
        instance.StudyID, instance.SeriesNumber, instance.InstanceNumber = str(number), "1", str(index)
        path = folder / f"sample-{number}-{index}.dcm"
        instance.save_as(path, enforce_file_format=True)
        yield path


def make_instance(study: dict[str, Any], name: str) -> Dataset:
    """An Ultrasound Image (PS3.3 A.6) around the bytes of a JPEG file of ``frames``, with a UID of its own."""
    jpeg = (HERE / "frames" / name).read_bytes()
    with Image.open(HERE / "frames" / name) as image:
        columns, rows = image.size
    moment = datetime.now(UTC)
    instance = Dataset()
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    instance.file_meta.MediaStorageSOPClassUID = instance.SOPClassUID = UltrasoundImageStorage
    instance.file_meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID = generate_uid()
    instance.PatientName, instance.PatientID = study["patient"], study["patient_id"]
    instance.PatientBirthDate, instance.PatientSex = "", "O"
    instance.AccessionNumber = study["accession"]
    instance.StudyDescription, instance.BodyPartExamined = study["description"], study["body_part"]
    instance.Laterality, instance.StationName = study["laterality"], study["station"]
    instance.OperatorsName, instance.ReferringPhysicianName = study["operator"], ""
    instance.StudyDate = instance.ContentDate = moment.strftime("%Y%m%d")
    instance.StudyTime = instance.ContentTime = moment.strftime("%H%M%S")
    instance.Modality, instance.Manufacturer = "US", "Sonomark samples"
    instance.ImageType = ["DERIVED", "SECONDARY"]
    instance.PatientOrientation = ""
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 3, "YBR_FULL_422"
    instance.PlanarConfiguration, instance.PixelRepresentation = 0, 0
    instance.BitsAllocated = instance.BitsStored = 8
    instance.HighBit = 7
    instance.Rows, instance.Columns = rows, columns
    instance.LossyImageCompression = "01"
    instance.PixelData = encapsulate([jpeg])
    return instance
