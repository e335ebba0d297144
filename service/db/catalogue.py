"""What QIDO-RS and WADO-RS ask: studies, series and instances by their attributes, within one institution or all.

Of an instance that came with different bytes the newest version is the one that is listed. Of a study that awaits the
blinded answer of whoever asks only the images are: a rejection note or a presentation state tells of the first reader.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, select, true
from sqlalchemy.orm import Session, aliased, joinedload

from service.db import double_reads
from service.db.tables import Instance, Release, Series, Study
from service.errors import ConfigurationError, NotFound

LEVELS = ("study", "series", "instance")
_NUMBER = re.compile(r"-?[0-9]{1,9}")


class UnknownKey(ConfigurationError):
    """A matching key that is not kept, or a value that is none of its kind."""


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom: the one institution they may see (empty: all), and whose blinded answers may be awaited."""

    site: str = ""
    second_reader: int | None = None

    def may_see(self, tells: ColumnElement[bool]) -> list[ColumnElement[bool]]:
        """The conditions of everything listed; ``tells``: it holds images, and nothing that a person said of them."""
        of_site = [Study.institution == self.site] if self.site else []
        if self.second_reader is None:
            return of_site
        return [*of_site, tells | Study.id.not_in(double_reads.awaiting(self.second_reader))]


_IS_IMAGE = Instance.number_of_frames > 0
_HAS_IMAGE = exists().where(Instance.study_id == Series.study_id, Instance.series_id == Series.id, _IS_IMAGE)


@dataclass(frozen=True, slots=True)
class StudyEntry:
    study: Study
    modalities: list[str]
    series: int
    instances: int


@dataclass(frozen=True, slots=True)
class SeriesEntry:
    series: Series
    study: Study
    instances: int


@dataclass(frozen=True, slots=True)
class InstanceEntry:
    instance: Instance
    series: Series
    study: Study
    released: bool


# Matching keys by level: attribute keyword → (column, kind of matching).
KEYS: dict[str, dict[str, tuple[Any, str]]] = {
    "study": {
        "StudyInstanceUID": (Study.study_instance_uid, "uid"),
        "PatientName": (Study.patient_name, "text"),
        "PatientID": (Study.patient_id, "text"),
        "AccessionNumber": (Study.accession_number, "text"),
        "StudyDate": (Study.study_date, "date"),
        "StudyDescription": (Study.description, "text"),
        "ModalitiesInStudy": (Series.modality, "modality"),
    },
    "series": {
        "SeriesInstanceUID": (Series.series_instance_uid, "uid"),
        "Modality": (Series.modality, "text"),
        "SeriesDescription": (Series.description, "text"),
    },
    "instance": {
        "SOPInstanceUID": (Instance.sop_instance_uid, "uid"),
        "SOPClassUID": (Instance.sop_class_uid, "uid"),
        "InstanceNumber": (Instance.instance_number, "number"),
    },
}


def studies(session: Session, keys: Mapping[str, str], who: Asker, limit: int, offset: int) -> list[StudyEntry]:
    """Studies, the newest first."""
    query = _matched(select(Study), keys, ("study",)).where(*who.may_see(true()))
    found = session.scalars(query.order_by(Study.id.desc()).limit(limit).offset(offset)).all()
    ids = [study.id for study in found]
    modalities: dict[int, list[str]] = {}
    for study_id, modality in session.execute(
        select(Series.study_id, Series.modality)
        .join(Study, Study.id == Series.study_id)
        .where(Series.study_id.in_(ids), *who.may_see(_HAS_IMAGE))
        .order_by(Series.id)
    ):
        modalities.setdefault(study_id, []).append(modality)
    images = _counts(session, Instance.study_id, ids, who)
    return [
        StudyEntry(
            study,
            sorted({each for each in modalities.get(study.id, []) if each}),
            len(modalities.get(study.id, [])),
            images.get(study.id, 0),
        )
        for study in found
    ]


def series(session: Session, keys: Mapping[str, str], who: Asker, limit: int, offset: int) -> list[SeriesEntry]:
    """Series, in the order of their arrival."""
    query = _matched(select(Series).join(Study).options(joinedload(Series.study)), keys, LEVELS[:2])
    found = session.scalars(query.where(*who.may_see(_HAS_IMAGE)).order_by(Series.id).limit(limit).offset(offset)).all()
    images = _counts(session, Instance.series_id, [each.study_id for each in found], who)
    return [SeriesEntry(each, each.study, images.get(each.id, 0)) for each in found]


def instances(
    session: Session, keys: Mapping[str, str], who: Asker, limit: int, offset: int = 0
) -> list[InstanceEntry]:
    """Instances, in the order of their arrival."""
    rows = session.execute(_matched(_of_instances(who), keys, LEVELS).limit(limit).offset(offset))
    return [InstanceEntry(*row) for row in rows]


def require(session: Session, who: Asker, study: str, series: str = "", instance: str = "") -> list[InstanceEntry]:
    """The instances of exactly that address, at least one; raises NotFound when there is none."""
    query = _of_instances(who).where(Study.study_instance_uid == study)
    if series:
        query = query.where(Series.series_instance_uid == series)
    if instance:
        query = query.where(Instance.sop_instance_uid == instance)
    found = [InstanceEntry(*row) for row in session.execute(query)]
    if not found:
        raise NotFound("There is nothing of that UID.", cure="It may have been removed, or belong to another site.")
    return found


def _of_instances(who: Asker) -> Select[Instance, Series, Study, bool]:
    released = exists().where(Release.instance_id == Instance.id)
    query = select(Instance, Series, Study, released)
    query = query.join(Series, Series.id == Instance.series_id).join(Study, Study.id == Instance.study_id)
    return query.where(_newest(), *who.may_see(_IS_IMAGE)).order_by(Instance.id)


def _newest() -> ColumnElement[bool]:
    newer = aliased(Instance)
    return ~exists().where(newer.sop_instance_uid == Instance.sop_instance_uid, newer.id > Instance.id)


def _counts(session: Session, by: Any, studies: Sequence[int], who: Asker) -> dict[int, int]:
    """Instances of these studies, counted by study or series."""
    query = select(by, func.count()).join(Study, Study.id == Instance.study_id)
    query = query.where(Instance.study_id.in_(studies), _newest(), *who.may_see(_IS_IMAGE)).group_by(by)
    return {row[0]: row[1] for row in session.execute(query)}


def _matched(query: Any, keys: Mapping[str, str], levels: Sequence[str]) -> Any:
    known = {name: key for level in levels for name, key in KEYS[level].items()}
    for name, value in keys.items():
        if name not in known:
            raise UnknownKey(f"{name[:64]} is no matching key at this level.", cure=f"Known: {', '.join(known)}.")
        if "\x00" in value:  # which PostgreSQL takes for no text, and no value that is kept has
            raise UnknownKey(f"The value of {name} holds a character that no value has.", cure="Leave out %00.")
        column, kind = known[name]
        if value not in ("", "*"):
            query = query.where(_condition(column, kind, name, value))
    return query


def _condition(column: Any, kind: str, name: str, value: str) -> ColumnElement[bool]:
    """Matching of PS3.4 section C.2.2.2: single value, list of UIDs, wild card, range."""
    condition: ColumnElement[bool]
    if kind == "uid":
        condition = column.in_(value.replace("\\", ",").split(","))
    elif kind == "modality":
        sibling = aliased(Series)  # any of the study's, also where its series themselves are listed
        named = sibling.modality.in_(value.replace("\\", ",").split(","))
        condition = exists().where(sibling.study_id == Study.id, named).correlate(Study)
    elif kind == "date":
        first, is_range, last = value.partition("-")
        bounds = []
        if first or not last:  # a range that is open at both ends says nothing
            bounds.append(column >= _day(first, name))
        if last or not is_range:
            bounds.append(column <= _day(last or first, name))
        condition = and_(*bounds)
    elif kind == "number":
        if not _NUMBER.fullmatch(value):
            raise UnknownKey(f"The value of {name} is no number.", cure="Write at most nine digits.")
        condition = column == int(value)
    elif "*" in value or "?" in value:
        escaped = value.replace("/", "//").replace("%", "/%").replace("_", "/_")
        condition = column.ilike(escaped.replace("*", "%").replace("?", "_"), escape="/")
    else:
        condition = column == value
    return condition


def _day(text: str, name: str) -> date:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError as error:
        raise UnknownKey(
            f"{name} is no date or range of dates.", cure="Write 20260131 or 20260101-20260131."
        ) from error
