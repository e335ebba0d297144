"""What presentation states and reports say of the images of their study."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select
from sqlalchemy.orm import Session

from service.db.session import past_mapper
from service.db.tables import Instance, Remark
from service.dicom.remarks import Remark as Said
from service.dicom.remarks import Source


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
    """What is said, by study and by the SOP Instance UID it is said of; other studies' objects say nothing here."""
    found: dict[tuple[int, str], list[Said]] = defaultdict(list)
    for row in past_mapper(session).execute(_SAID, {"ids": list(study_ids)}):
        found[row.study_id, row.sop_instance_uid].append(_said(row))
    return found


_SAID = (
    select(Instance.study_id, *Remark.__table__.c)
    .join(Instance, Instance.id == Remark.instance_id)
    .where(Instance.study_id.in_(bindparam("ids", expanding=True)))
    .order_by(Remark.id)
)


def _said(row: Row[Any]) -> Said:
    box = None if row.x is None else (row.x, row.y or 0, row.width or 0, row.height or 0)
    source: Source = "sr" if row.source == "sr" else "presentation_state"
    return Said(source, row.sop_instance_uid, row.kind, row.frame, box, row.text, row.value, row.unit)
