"""C-STORE through a real socket: what is acknowledged is on disk and in the database, byte for byte."""

import hashlib
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    generate_uid,
)
from pynetdicom import AE

from service.archive.lanes import entries
from service.archive.store import instance_key
from service.db.session import Database
from service.db.tables import AnalysisState
from service.dicom.header import data_set_position, read_header
from service.errors import DataSetMismatch
from service.receive.contexts import COMPANIONS, SECONDARY_CAPTURE, TRANSFER_SYNTAXES, ULTRASOUND
from service.receive.upper_layer import NO_DATA_SET
from service.settings import Settings
from tests.faults.images import image
from tests.faults.sender import Association, p_data, store_pdus, store_request
from tests.receive.conftest import US_IMAGE, RunningReceiver, StartReceiver, instances, ultrasound

SUCCESS, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA900, 0xC000


def dcmtk(program: str, receiver: RunningReceiver, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a sender of DCMTK."""
    return subprocess.run(
        [program, "-v", "-aec", "SONOMARK", *arguments],
        env=os.environ | {"TCP_NODELAY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def archived(house: Settings) -> list[Path]:
    """Every file in the archive, temporary ones that stay too, once the journal is empty."""
    archive = house.data_dir / "archive"
    lanes = list((archive / "journal").glob("*.lane"))
    deadline = time.monotonic() + 10
    # A copy that came twice is still being written when the first has its name already.
    while (any(entry_of(lane) for lane in lanes) or any_file(archive / "incoming")) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [path for path in archive.rglob("*") if path.is_file() and path.suffix != ".lane"]


def any_file(folder: Path) -> bool:
    return any(path.is_file() for path in folder.rglob("*"))


def entry_of(lane: Path) -> bool:
    """Whether a lane holds a record that is not filed, or its association still lives."""
    with lane.open("rb") as file:
        return any(not (lane.parents[1] / instance_key(entry.sha256)).exists() for entry in entries(file.fileno()))


def test_echo(receiver: RunningReceiver) -> None:
    assert dcmtk("echoscu", receiver, "127.0.0.1", str(receiver.port)).returncode == 0


def test_an_acknowledged_instance_is_stored_queued_and_unchanged(
    receiver: RunningReceiver, db: Database, house: Settings
) -> None:
    dataset = ultrasound(PatientName="<script>alert(1)</script>", StudyDescription="'; DROP TABLE studies;--")
    assert receiver.store(dataset) == [SUCCESS]
    [row] = instances(db)
    [stored] = archived(house)
    assert stored == house.data_dir / "archive" / row.archive_key
    data = stored.read_bytes()[data_set_position(stored.read_bytes()) :]
    assert hashlib.sha256(data).hexdigest() == row.sha256 == stored.stem
    assert len(data) == row.size
    assert pydicom.dcmread(stored) == dataset
    assert (row.rows, row.columns, row.number_of_frames) == (32, 48, 1)
    assert (row.calling_ae_title, row.transfer_syntax_uid) == ("US01", ExplicitVRLittleEndian)
    assert row.correlation_id in receiver.log.read_text()
    assert row.study.patient_name == "<script>alert(1)</script>"
    assert not row.study.settled
    [analysis] = row.analyses
    assert analysis.state == AnalysisState.QUEUED


def test_the_log_holds_no_patient_data(receiver: RunningReceiver) -> None:
    broken = ultrasound(PatientName="Canary^Patient", StudyInstanceUID="../CANARY-ID")
    receiver.store(ultrasound(), broken)
    receiver.terminate()
    assert "CANARY" not in receiver.log.read_text().upper()


def test_dcmsend_delivers_every_real_file(
    receiver: RunningReceiver, db: Database, house: Settings, real_data: Path
) -> None:
    folder = real_data / "dicom"
    sent = dcmtk(
        "dcmsend", receiver, "-nh", "--scan-directories", "--scan-pattern", "*.dcm",
        "127.0.0.1", str(receiver.port), folder,
    )  # fmt: skip
    assert "with status SUCCESS  : 18" in sent.stdout + sent.stderr
    rows = instances(db)
    digests = {row.sha256 for row in rows}
    originals = {
        hashlib.sha256(p.read_bytes()[data_set_position(p.read_bytes()) :]).hexdigest() for p in folder.glob("*.dcm")
    }
    # dcmsend takes group lengths out and converts big endian; what it does not touch arrives byte for byte.
    assert digests & originals or len(digests) == len(rows)
    by_uid = {row.sop_instance_uid: [r for r in rows if r.sop_instance_uid == row.sop_instance_uid] for row in rows}
    for versions in by_uid.values():
        assert all(version.conflict == (len(versions) > 1) for version in versions)
    assert any(len(versions) > 1 for versions in by_uid.values())
    assert len(archived(house)) == len(rows)
    for row in rows:
        assert read_header(house.data_dir / "archive" / row.archive_key).sop_instance_uid == row.sop_instance_uid
        assert len(row.analyses) == 1


def test_uncompressed_syntaxes(receiver: RunningReceiver, db: Database) -> None:
    syntaxes = [ImplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian]
    for syntax in syntaxes:
        dataset = ultrasound(PatientName="Ä", SpecificCharacterSet="ISO_IR 100")
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].VR = "OB" if syntax != ImplicitVRLittleEndian else "OW"
        assert receiver.store(dataset) == [SUCCESS]
    rows = instances(db)
    assert [row.transfer_syntax_uid for row in rows] == syntaxes
    assert {row.study.patient_name for row in rows} == {"Ä"}


def test_every_class_in_every_syntax_is_accepted(receiver: RunningReceiver) -> None:
    classes = [*ULTRASOUND, *SECONDARY_CAPTURE, *COMPANIONS]
    offers = [(sop_class, syntax) for sop_class in classes for syntax in TRANSFER_SYNTAXES]
    for start in range(0, len(offers), 128):
        association = receiver.associate(*offers[start : start + 128])
        assert not association.rejected_contexts
        association.release()


def test_senders_keep_their_bytes(receiver: RunningReceiver) -> None:
    """Offered a choice, the receiver takes what loses least; Implicit VR, which loses private VRs, comes last."""

    def chosen(*offered: str) -> str:
        ae = AE()
        ae.add_requested_context(US_IMAGE, list(offered))
        association = ae.associate("127.0.0.1", receiver.port)
        [context] = association.accepted_contexts
        association.release()
        return str(context.transfer_syntax[0])

    assert chosen(ImplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian) == ExplicitVRLittleEndian
    assert chosen(ImplicitVRLittleEndian, ExplicitVRBigEndian) == ExplicitVRBigEndian
    assert chosen(ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1) == JPEGLosslessSV1
    assert chosen(DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian) == ImplicitVRLittleEndian


def test_further_classes_can_be_configured(start_receiver: StartReceiver, db: Database) -> None:
    private = "1.3.46.670589.2.5.1.1"
    dataset = ultrasound(SOPClassUID=private)
    receiver = start_receiver(EXTRA_SOP_CLASSES=private)
    assert receiver.store(dataset) == [SUCCESS]
    assert [row.sop_class_uid for row in instances(db)] == [private]


def test_instances_without_pixels_are_stored_and_queued(receiver: RunningReceiver, db: Database) -> None:
    dataset = ultrasound()
    del dataset.PixelData
    report = ultrasound(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    del report.PixelData
    assert receiver.store(dataset) + receiver.store(report) == [SUCCESS, SUCCESS]
    assert [row.number_of_frames for row in instances(db)] == [0, 0]
    assert all(row.analyses for row in instances(db))


def test_images_too_large_to_decode_are_stored_all_the_same(receiver: RunningReceiver, db: Database) -> None:
    """It is the sender's only copy; the worker quarantines it with a reason."""
    assert receiver.store(ultrasound(Rows=65535, Columns=65535, NumberOfFrames="100000")) == [SUCCESS]
    [row] = instances(db)
    assert (row.rows, row.columns, row.number_of_frames) == (65535, 65535, 100_000)


def test_uids_that_are_none_are_refused(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    wrong = [
        {"SOPInstanceUID": "../../../etc/x"},
        {"SOPInstanceUID": "%s;|$(x)"},
        {"StudyInstanceUID": "../../x"},
        {"StudyInstanceUID": ""},
        {"SeriesInstanceUID": "1.2\n3"},
    ]
    for elements in wrong:
        assert receiver.store(ultrasound(**elements)) == [MISMATCH]
    log = receiver.log.read_text()
    assert "etc/x" not in log and "$(x)" not in log, "what is no UID may be a name"
    assert receiver.store(ultrasound()) == [SUCCESS]
    assert len(instances(db)) == 1
    assert len(archived(house)) == 1
    assert not list(house.data_dir.parent.rglob("etc"))


def _store_raw(receiver: RunningReceiver, data: bytes, sop_class: str, sop_instance: str, **settings: str) -> int:
    """C-STORE of exactly these bytes under a command of our choice."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    association = receiver.associate((US_IMAGE, ExplicitVRLittleEndian))
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_instance
    request.DataSet = BytesIO(data)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    assert response is not None
    return int(response.Status)


def _encoded(dataset: Dataset) -> bytes:
    from pynetdicom.dsutils import encode

    data = encode(dataset, False, True)
    assert data is not None
    return data


def test_a_refusal_names_instance_reason_and_cure(receiver: RunningReceiver) -> None:
    dataset = ultrasound(StudyInstanceUID="")
    assert receiver.store(dataset) == [MISMATCH]
    line = receiver.wait_for(r".*] refused .*").group(0)
    assert dataset.SOPInstanceUID in line
    assert "Study Instance UID is missing" in line and DataSetMismatch.cure in line


def test_data_set_and_command_must_agree(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    dataset = ultrasound()
    data, uid = _encoded(dataset), str(dataset.SOPInstanceUID)
    assert _store_raw(receiver, data, US_IMAGE, generate_uid()) == MISMATCH
    assert _store_raw(receiver, data, "1.2.840.10008.5.1.4.1.1.7", uid) == MISMATCH
    assert (
        _store_raw(receiver, _encoded(ultrasound(SOPClassUID="1.2.840.10008.5.1.4.1.1.7")), US_IMAGE, uid) == MISMATCH
    )
    assert not instances(db)
    assert not archived(house)
    assert _store_raw(receiver, data, US_IMAGE, uid) == SUCCESS


def test_what_is_no_data_set_is_refused(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    uid = generate_uid()
    data = _encoded(ultrasound(SOPInstanceUID=uid))
    deep = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 20_000
    for content in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 64, data[:-100], data[:40], deep, b"\xff" * 5000):
        assert _store_raw(receiver, content, US_IMAGE, uid) == CANNOT_UNDERSTAND
    assert not instances(db)
    assert not archived(house)
    assert "Traceback" not in receiver.log.read_text()
    assert _store_raw(receiver, data, US_IMAGE, uid) == SUCCESS


@pytest.mark.parametrize("lean", ["1", "0"])
def test_a_request_without_a_data_set_is_refused_by_name(
    start_receiver: StartReceiver, db: Database, lean: str
) -> None:
    """Also when the next one is there already: it must not be told what became of that."""
    receiver, one = start_receiver(LEAN_RECEIVING=lean), image(columns=32, rows=24)
    with closing(Association(receiver.port, [(one.sop_class, one.syntax)])) as sender:
        none = store_request(1, one.sop_class, "1.2.3", data_set=NO_DATA_SET)
        sender.socket.sendall(b"".join([p_data(1, none, is_command=True), *store_pdus(1, 2, one)]))
        assert [sender.status(), sender.status()] == [CANNOT_UNDERSTAND, SUCCESS]
    assert [row.sop_instance_uid for row in instances(db)] == [one.uid]
    receiver.wait_for("refused .*data set is empty.*0xC000")


def test_the_same_instance_from_eight_senders_at_once_is_one(
    receiver: RunningReceiver, db: Database, house: Settings
) -> None:
    dataset = ultrasound()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: receiver.store(dataset, dataset), range(8)))
    assert statuses == [[SUCCESS, SUCCESS]] * 8
    [row] = instances(db)
    assert len(row.analyses) == 1
    assert not row.conflict
    [stored] = archived(house)
    assert pydicom.dcmread(stored) == dataset


def test_other_bytes_under_the_same_uid_are_both_kept(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    first = ultrasound()
    second = ultrasound(**{name: first[name].value for name in ("SOPInstanceUID", "StudyInstanceUID")})
    elsewhere = ultrasound(SOPInstanceUID=first.SOPInstanceUID)
    with ThreadPoolExecutor(3) as pool:
        statuses = list(pool.map(receiver.store, [first, second, elsewhere]))
    assert statuses == [[SUCCESS]] * 3
    rows = instances(db)
    assert len(rows) == len(archived(house)) == 3
    assert all(row.conflict and row.study.conflict and len(row.analyses) == 1 for row in rows)


def test_the_same_bytes_mend_a_lost_file(receiver: RunningReceiver, db: Database, house: Settings) -> None:
    dataset = ultrasound()
    receiver.store(dataset)
    [stored] = archived(house)
    stored.unlink()
    assert receiver.store(dataset) == [SUCCESS]
    assert archived(house) == [stored]
    assert len(instances(db)) == 1


def test_storescu_too(receiver: RunningReceiver, db: Database, tmp_path: Path) -> None:
    ultrasound().save_as(tmp_path / "a.dcm", enforce_file_format=True)
    sent = dcmtk("storescu", receiver, "127.0.0.1", str(receiver.port), tmp_path / "a.dcm")
    assert sent.returncode == 0
    assert len(instances(db)) == 1


def test_options_of_a_peer(start_receiver: StartReceiver, db: Database) -> None:
    """What one cart gets wrong is put right for it alone; its images go first."""
    receiver = start_receiver(PEERS="US01;character_set=GB18030;priority=-5,US02")
    name = "王^小东"
    for title in ("US01", "US02"):
        dataset = ultrasound(SpecificCharacterSet="ISO_IR 100")
        dataset.PatientName = name.encode("gb18030")
        assert receiver.store(dataset, ae_title=title) == [SUCCESS]
    right, wrong = instances(db)
    assert right.study.patient_name == name
    assert wrong.study.patient_name != name
    assert [row.analyses[0].priority for row in (right, wrong)] == [-5, 0]


def test_several_receivers_behind_one_port(start_receiver: StartReceiver, db: Database) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    receiver = start_receiver(RECEIVERS="2", DICOM_PORT=str(port), MAX_ASSOCIATIONS="20")
    deadline = time.monotonic() + 20
    while receiver.log.read_text().count("listening") < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    datasets = [ultrasound() for _ in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda dataset: receiver.store(dataset), datasets)] == [[SUCCESS]] * 12
    assert len(instances(db)) == 12
    members = psutil.Process(receiver.process.pid).children()
    assert len(members) == 1
    receiver.terminate()
    assert not psutil.pid_exists(members[0].pid)
