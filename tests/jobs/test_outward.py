"""Real worker and sweeper processes: from a stored study with a report in it to a report of ours at another node."""

import time
from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset, dcmread, examples
from pynetdicom import AE, StoragePresentationContexts, evt
from sqlalchemy import select

from service.db.session import database
from service.db.tables import Delivery, DeliveryState, Remark, Study
from tests.measurement import VALUE, write_measurement
from tests.working_house import WorkingHouse

UID = "1.2.826.0.1.3680043.8.498.9"


def image(folder: Path) -> Path:
    still = dcmread(examples.get_path("rgb_color"))
    still.StudyInstanceUID, still.SOPInstanceUID, still.StudyDescription = UID, f"{UID}.1", "US BREAST"
    still.file_meta.MediaStorageSOPInstanceUID = still.SOPInstanceUID
    still.save_as(folder / "still.dcm")
    return folder / "still.dcm"


def test_a_verdict_reaches_another_node(make_house: Callable[..., WorkingHouse], tmp_path: Path) -> None:
    taken: list[Dataset] = []

    def store(event: evt.Event) -> int:
        taken.append(event.dataset)
        return 0x0000

    node = AE("PACS")
    node.supported_contexts = StoragePresentationContexts
    server = node.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        house = make_house(REPORT_TO=f"PACS@127.0.0.1:{server.socket.getsockname()[1]}")
        house.start("work")
        house.start("sweep")
        house.wait(
            [house.store(image(tmp_path)), house.store(write_measurement(tmp_path / "report.dcm", UID, f"{UID}.1"))]
        )
        deadline = time.monotonic() + 60
        while not taken:
            assert time.monotonic() < deadline, house.log()
            time.sleep(0.1)
    finally:
        server.shutdown()
    report = taken[-1]
    assert (report.Modality, report.StudyInstanceUID) == ("SR", UID)
    with database().read() as session:
        said = session.scalars(select(Remark)).one()
        assert (said.sop_instance_uid, said.source, said.value) == (f"{UID}.1", "sr", VALUE)
        assert session.scalars(select(Study.verdict)).one() is not None
        while session.scalars(select(Delivery.state)).all()[-1] is not DeliveryState.DELIVERED:
            assert time.monotonic() < deadline, house.log()
            session.rollback()
            time.sleep(0.1)
    assert "CompressedSamples" not in house.log()  # the patient's name in the file
