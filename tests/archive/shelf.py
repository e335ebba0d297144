"""Studies in archive and database as the receiver leaves them, then aged and judged as a test wants."""

import hashlib
from datetime import timedelta

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from service.archive.store import ArchiveStore, instance_key
from service.db.instances import Arrival, first_analysis, register
from service.db.session import Database
from service.db.tables import Analysis, AnalysisState, Instance, Study, Verdict, now
from service.dicom.header import parse_header
from service.dicom.part10 import file_head
from tests.receive.conftest import ultrasound


def encoded(dataset: Dataset) -> bytes:
    """The data set alone, Explicit VR Little Endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def shelve(db: Database, store: ArchiveStore, dataset: Dataset | None = None) -> Instance:
    """One instance, stored and registered."""
    dataset = dataset or ultrasound()
    data = encoded(dataset)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    header = parse_header(data, syntax)
    sha256 = hashlib.sha256(data).hexdigest()
    temporary = store.incoming()
    temporary.write_bytes(file_head(header.sop_class_uid, header.sop_instance_uid, syntax, "US01") + data)
    store.keep(temporary, instance_key(sha256))
    with db.begin() as session:
        entered = register(session, Arrival(header, sha256, len(data), instance_key(sha256), "US01"), timedelta(0))
        if entered.created:
            first_analysis(session, entered.instance_id)
        return session.get_one(Instance, entered.instance_id)


def study(
    db: Database,
    store: ArchiveStore,
    *,
    days: float = 400,
    images: int = 2,
    verdict: Verdict | None = Verdict.COMPLIANT,
    state: AnalysisState = AnalysisState.DONE,
    institution: str = "North",
) -> str:
    """A study whose last image came so many days ago; its Study Instance UID."""
    uid, series = generate_uid(), generate_uid()
    for _ in range(images):
        image = ultrasound(StudyInstanceUID=uid, SeriesInstanceUID=series, InstitutionName=institution)
        shelve(db, store, image)
    with db.begin() as session:
        found = session.scalar(select(Study).where(Study.study_instance_uid == uid))
        assert found is not None
        found.last_received_at = now() - timedelta(days=days)
        found.settled, found.verdict = verdict is not None, verdict
        ids = select(Instance.id).where(Instance.study_id == found.id)
        session.execute(update(Analysis).where(Analysis.instance_id.in_(ids)).values(state=state))
    return str(uid)


def at_once(_: str) -> timedelta:
    """Studies settle with their last image."""
    return timedelta(0)


def spoil(store: ArchiveStore, key: str) -> None:
    """Flip one bit near the end of the object, on the disk."""
    path = store.place(key)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
