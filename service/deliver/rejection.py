"""A person asked for a retake: a Key Object Selection "Rejected for Quality Reasons" (113001, DCM; IHE IOCM)."""

from __future__ import annotations

from datetime import datetime

import highdicom as hd
from highdicom import ko, sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from service.deliver.results import MANUFACTURER, Results, stamped
from service.deliver.structured_report import observer

SERIES_NUMBER = 9303


def rejection_note(results: Results, rejected: list[str], why: str, at: datetime) -> Dataset:
    """The note on ``rejected`` images (SOP Instance UIDs), or on all where none is named. ``why`` is a fixed phrase."""
    images = [image.header for image in results.images if image.uid in rejected]
    images = images or [image.header for image in results.images]
    content = ko.KeyObjectSelection(
        document_title=codes.DCM.RejectedForQualityReasons,
        referenced_objects=images,
        observer_device_context=observer(results),
        description=why,
    )
    content[0].ContentSequence.insert(0, _modifier())
    note = ko.KeyObjectSelectionDocument(
        evidence=images,
        content=content,
        series_instance_uid=results.uid("series", "rejection", at.isoformat()),
        series_number=SERIES_NUMBER,
        sop_instance_uid=results.uid("rejection", at.isoformat()),
        instance_number=1,
        manufacturer=MANUFACTURER,
        series_description="Rejected for quality reasons",
    )
    return stamped(note, results, at)


def _modifier() -> sr.CodeContentItem:
    """Under this title TID 2010 requires a reason of CID 7011; a missing annotation has none of its own there."""
    return sr.CodeContentItem(
        name=hd.sr.CodedConcept("113011", "DCM", "Document Title Modifier"),
        value=codes.cid7011.OtherFailure,
        relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
