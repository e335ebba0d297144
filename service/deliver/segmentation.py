"""The masks as DICOM Segmentations: one object a frame, one segment a kind of annotation (PS3.3 A.51)."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import highdicom as hd
import numpy as np
from highdicom import seg
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import UltrasoundImageStorage

from service.compliance.facts import KINDS
from service.deliver.results import MANUFACTURER, MODEL, SCHEME, Mask, Results, SeenImage, stamped

SERIES_NUMBER = 9302
_REFERENCED = Tag("ReferencedSOPInstanceUID")


def segmentations(results: Results) -> Iterator[Dataset]:
    """A segmentation for each frame on which anything was found."""
    number = 0
    for image in results.images:
        for frame, mask in sorted(image.masks().items()):
            if mask.any():
                number += 1
                yield _segmentation(results, image, frame, mask, number)


def _segmentation(results: Results, image: SeenImage, frame: int, mask: Mask, number: int) -> Dataset:
    found = [int(value) for value in np.unique(mask) if value]
    made = seg.Segmentation(
        source_images=[_one_frame(image)],
        pixel_array=np.stack([mask == value for value in found], axis=-1)[np.newaxis].astype(np.uint8),
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(results, place, value) for place, value in enumerate(found, start=1)],
        series_instance_uid=results.uid("series", "seg"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=results.uid("seg", image.uid, str(frame)),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=results.code_version,
        device_serial_number=results.code_version,
        content_label="ANNOTATIONS",
        content_description="Annotations burned into the image",
        series_description="Annotation masks",
    )
    made.PatientOrientation = []  # type 2C where the image has no position in the patient (PS3.3 C.7.6.1)
    if _is_multiframe(image):
        _refer_to_frame(made, image, frame)
    return stamped(made, results, results.judged_at)


def _one_frame(image: SeenImage) -> Dataset:
    """The source as the library wants it, which takes no cine without a frame of reference: one frame by itself."""
    header = deepcopy(image.header)
    if _is_multiframe(image):
        header.SOPClassUID = UltrasoundImageStorage
        del header.NumberOfFrames
    return header


def _refer_to_frame(made: Dataset, image: SeenImage, frame: int) -> None:
    """Say of which class the cine is, and of which of its frames this is the mask."""
    made.walk(lambda item, element: _correct(item, image, frame) if element.tag == _REFERENCED else None)


def _correct(item: Dataset, image: SeenImage, frame: int) -> None:
    if item.ReferencedSOPInstanceUID == image.uid:
        item.ReferencedSOPClassUID = image.header.SOPClassUID
        if "PurposeOfReferenceCodeSequence" in item:
            item.ReferencedFrameNumber = frame


def _is_multiframe(image: SeenImage) -> bool:
    return "NumberOfFrames" in image.header


def _segment(results: Results, number: int, value: int) -> seg.SegmentDescription:
    kind = KINDS[value - 1]
    return seg.SegmentDescription(
        segment_number=number,
        segment_label=kind.replace("_", " ").capitalize(),
        segmented_property_category=codes.cid7150.SpatialAndRelationalConcept,
        segmented_property_type=hd.sr.CodedConcept(kind, SCHEME, kind.replace("_", " ").capitalize()),
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="Sonomark",
            family=codes.cid7162.ArtificialIntelligence,
            version=results.network or results.code_version,
        ),
    )
