"""A structured report with one measurement, as an ultrasound machine sends it beside its images."""

from pathlib import Path

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, UltrasoundImageStorage

VALUE = 12.5


def write_measurement(path: Path, study: str, of: str) -> Path:
    """One length of ``VALUE``, measured on the image whose SOP Instance UID is ``of``."""
    code = _made(CodeValue="1", CodingSchemeDesignator="LN", CodeMeaning="Length")
    reference = _made(ReferencedSOPClassUID=UltrasoundImageStorage, ReferencedSOPInstanceUID=of)
    image = _made(RelationshipType="INFERRED FROM", ValueType="IMAGE", ReferencedSOPSequence=[reference])
    number = _made(
        RelationshipType="CONTAINS",
        ValueType="NUM",
        ConceptNameCodeSequence=[code],
        MeasuredValueSequence=[_made(NumericValue=str(VALUE))],
        ContentSequence=[image],
    )
    report = _made(
        SOPClassUID=ComprehensiveSRStorage,
        SOPInstanceUID=f"{study}.99",
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.9",
        Modality="SR",
        ContentSequence=[number],
    )
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.save_as(path, enforce_file_format=True)
    return path


def _made(**values: object) -> Dataset:
    one = Dataset()
    for name, value in values.items():
        setattr(one, name, value)
    return one
