"""What presentation states and reports say of the images of their study."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, delete, exists, insert, select
from sqlalchemy.orm import Session, aliased

from service.db.analyses import in_state
from service.db.session import past_mapper
from service.db.tables import Analysis, AnalysisState, Instance, Remark
from service.dicom.remarks import PRESENTATION_STATES, REPORTS, Source, source_of
from service.dicom.remarks import Remark as Said


def keep(session: Session, instance_id: int, said: Iterable[Said]) -> None:
    """Keep what an object says, in place of what an earlier run read in it."""
    session.execute(delete(Remark).where(Remark.instance_id == instance_id))
    rows = [
        {
            "instance_id": instance_id,
            "sop_instance_uid": each.sop_instance_uid[:64],
            "frame": each.frame,
            "source": each.source,
            "kind": each.kind,
            **dict(zip(("x", "y", "width", "height"), each.box or (None,) * 4, strict=True)),
            "text": each.text.replace("\x00", ""),
            "value": each.value,
            "unit": each.unit[:64],
        }
        for each in said
    ]
    if rows:
        session.execute(insert(Remark), rows)


def of_studies(session: Session, study_ids: Sequence[int]) -> dict[tuple[int, str], list[Said]]:
    """What is said, by study and by the SOP Instance UID it is said of; other studies' objects say nothing here, nor do
    versions of an object of which there is a newer one."""
    found: dict[tuple[int, str], list[Said]] = defaultdict(list)
    for row in past_mapper(session).execute(_SAID, {"ids": list(study_ids)}):
        found[row.study_id, row.sop_instance_uid].append(_said(row))
    return found


def unread(session: Session, study_ids: Sequence[int]) -> dict[int, frozenset[Source]]:
    """As what each study holds objects that could not be read, and of which nobody knows what they say."""
    found: dict[int, set[Source]] = defaultdict(set)
    for row in past_mapper(session).execute(_UNREAD, {"ids": list(study_ids)}):
        source = source_of(row.sop_class_uid)
        if source is not None:
            found[row.study_id].add(source)
    return {study_id: frozenset(sources) for study_id, sources in found.items()}


def _is_newest() -> ColumnElement[bool]:
    """By the order in which compliance/facts.py takes one version for newer than another. Only what is in conflict has
    versions: to look for those of every instance would cost a large study, on SQLite, its square."""
    newer = aliased(Instance)
    return ~Instance.conflict | ~exists().where(
        newer.study_id == Instance.study_id,
        newer.sop_instance_uid == Instance.sop_instance_uid,
        (newer.received_at > Instance.received_at)
        | ((newer.received_at == Instance.received_at) & (newer.sha256 > Instance.sha256)),
    )


_SAID = (
    select(Instance.study_id, *Remark.__table__.c)
    .join(Instance, Instance.id == Remark.instance_id)
    .where(Instance.study_id.in_(bindparam("ids", expanding=True)), _is_newest())
    .order_by(Remark.id)
)
_UNREAD = (
    select(Instance.study_id, Instance.sop_class_uid)
    .join(Analysis, Analysis.instance_id == Instance.id)
    .where(
        Instance.study_id.in_(bindparam("ids", expanding=True)),
        Instance.number_of_frames == 0,
        Instance.sop_class_uid.in_((*PRESENTATION_STATES, *REPORTS)),
        in_state(AnalysisState.QUARANTINED),
        ~Analysis.superseded,
        _is_newest(),
    )
)


def _said(row: Row[Any]) -> Said:
    box = None if row.x is None else (row.x, row.y or 0, row.width or 0, row.height or 0)
    source: Source = "sr" if row.source == "sr" else "presentation_state"
    return Said(source, row.sop_instance_uid, row.kind, row.frame, box, row.text, row.value, row.unit)
