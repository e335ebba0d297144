"""What presentation states and reports say of the images of their study."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

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
    rows = session.execute(
        select(Instance.study_id, Remark)
        .join(Instance, Instance.id == Remark.instance_id)
        .where(Instance.study_id.in_(study_ids))
        .order_by(Remark.id)
    )
    found: dict[tuple[int, str], list[Said]] = defaultdict(list)
    for study_id, row in rows:
        found[study_id, row.sop_instance_uid].append(_said(row))
    return found


def _said(row: Remark) -> Said:
    box = None if row.x is None else (row.x, row.y or 0, row.width or 0, row.height or 0)
    source: Source = "sr" if row.source == "sr" else "presentation_state"
    return Said(source, row.sop_instance_uid, row.kind, row.frame, box, row.text, row.value, row.unit)
