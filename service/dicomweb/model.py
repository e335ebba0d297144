"""Rows as DICOM JSON (PS3.18 annex F): the attributes that QIDO-RS requires, as far as they are kept."""

from datetime import date
from typing import Any

from service.db.catalogue import InstanceEntry, SeriesEntry, StudyEntry
from service.db.tables import Series, Study

Attributes = dict[str, Any]


def study(of: StudyEntry, base: str) -> Attributes:
    """PS3.18 table 10.6.3-3."""
    return {
        **_study(of.study),
        **_value("00080061", "CS", *of.modalities),
        **_value("00081190", "UR", f"{base}/studies/{of.study.study_instance_uid}"),
        **_value("00201206", "IS", of.series),
        **_value("00201208", "IS", of.instances),
    }


def series(of: SeriesEntry, base: str) -> Attributes:
    """PS3.18 table 10.6.3-4, with the attributes of its study."""
    where = f"{base}/studies/{of.study.study_instance_uid}/series/{of.series.series_instance_uid}"
    return {
        **_study(of.study),
        **_series(of.series),
        **_value("00081190", "UR", where),
        **_value("00201209", "IS", of.instances),
    }


def instance(of: InstanceEntry, base: str) -> Attributes:
    """PS3.18 table 10.6.3-5, with the attributes of its study and series."""
    row, header = of.instance, of.instance.header
    where = (
        f"{base}/studies/{of.study.study_instance_uid}/series/{of.series.series_instance_uid}"
        f"/instances/{row.sop_instance_uid}"
    )
    return {
        **_study(of.study),
        **_series(of.series),
        **_value("00080016", "UI", row.sop_class_uid),
        **_value("00080018", "UI", row.sop_instance_uid),
        **_value("00080056", "CS", "OFFLINE" if of.released else "ONLINE"),
        **_value("00081190", "UR", where),
        **_value("00200013", "IS", row.instance_number),
        **_value("00280010", "US", row.rows or None),
        **_value("00280011", "US", row.columns or None),
        **_value("00280100", "US", header.get("bits_allocated")),
        **_value("00280008", "IS", row.number_of_frames or None),
        **_value("00083002", "UI", row.transfer_syntax_uid),
    }


def _study(of: Study) -> Attributes:
    return {
        **_value("00080005", "CS", "ISO_IR 192"),
        **_value("00080020", "DA", _date(of.study_date)),
        **_value("00080050", "SH", of.accession_number),
        **_value("00081030", "LO", of.description),
        **_value("00100010", "PN", _name(of.patient_name)),
        **_value("00100020", "LO", of.patient_id),
        **_value("00100030", "DA", _date(of.patient_birth_date)),
        **_value("00100040", "CS", of.patient_sex),
        **_value("0020000D", "UI", of.study_instance_uid),
    }


def _series(of: Series) -> Attributes:
    return {
        **_value("00080060", "CS", of.modality),
        **_value("0008103E", "LO", of.description),
        **_value("0020000E", "UI", of.series_instance_uid),
    }


def _value(tag: str, vr: str, *values: Any) -> Attributes:
    """One attribute; empty ones are there without a value, as the standard wants it."""
    given = [value for value in values if value not in (None, "")]
    return {tag: {"vr": vr, "Value": given} if given else {"vr": vr}}


def _name(of: str) -> dict[str, str] | None:
    """A person's name by its component groups (PS3.5 section 6.2.1.2)."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), of.split("=", 2), strict=False)
    return {group: said for group, said in groups if said} or None


def _date(of: date | None) -> str | None:
    return of.strftime("%Y%m%d") if of else None
