"""STOW-RS: the same archive, queue, guards and truth as C-STORE."""

import hashlib
import os
from io import BytesIO

import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

from service.archive.store import archive
from service.db import audit
from service.db.session import Database
from service.db.tables import AnalysisState, Role
from service.dicom.header import data_set_position
from service.dicomweb.parts import Reader
from service.errors import StorageError
from service.settings import settings
from tests.dicomweb.conftest import Send, Server, file, whole
from tests.receive.conftest import instances, ultrasound


def reasons(answer: dict) -> list[int]:
    """Those of instances, then those of parts that say of none (PS3.18 table I.2-1)."""
    named, others = (answer.get(tag, {}).get("Value", []) for tag in ("00081198", "0008119A"))
    assert all({"00081150", "00081155"} <= each.keys() for each in named)
    assert all(set(each) == {"00081197"} for each in others)
    return [each["00081197"]["Value"][0] for each in named + others]


def test_an_independent_client_stores_a_study(client: DICOMwebClient, db: Database) -> None:
    study = generate_uid()
    sent = [whole(ultrasound(StudyInstanceUID=study)) for _ in range(3)]
    answer = client.store_instances(sent, study)
    assert len(answer.ReferencedSOPSequence) == 3 and "FailedSOPSequence" not in answer
    rows = instances(db)
    assert {row.sop_instance_uid for row in rows} == {str(each.SOPInstanceUID) for each in sent}
    assert all(row.analyses[0].state is AnalysisState.QUEUED for row in rows)
    for row in rows:
        path = archive().path(row.archive_key)
        assert hashlib.sha256(path.read_bytes()[data_set_position(path.read_bytes()) :]).hexdigest() == row.sha256
        assert path.read_bytes()[:128] == bytes(128)
    assert not list((archive().root / "incoming").rglob("*.part"))
    with db.read() as session:
        assert audit.search(session, action="dicomweb.store")[0].detail == {"stored": 3, "failed": 0}


def test_the_bytes_are_kept_as_they_were_sent(send: Send, db: Database) -> None:
    data = file(ultrasound())
    evil = b"MZ" + data[2:]  # a preamble that looks like a program
    assert send(evil).status_code == 200
    (row,) = instances(db)
    kept = archive().path(row.archive_key)
    start = data_set_position(kept.read_bytes())
    assert data.endswith(kept.read_bytes()[start:]) and kept.read_bytes()[:2] == bytes(2)


def test_good_and_bad_in_one_request(send: Send, db: Database) -> None:
    good, other = ultrasound(), ultrasound()
    lying = file(ultrasound()).replace(str(other.SOPInstanceUID).encode(), b"1.2.3")
    wrong_class = ultrasound()
    wrong_class.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"  # CT
    deflated = ultrasound()
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    cut = file(ultrasound())[:-700]
    answer = send(file(good), b"not DICOM", file(wrong_class), file(deflated), cut)
    assert answer.status_code == 202
    body = answer.json()
    assert body["00081199"]["Value"][0]["00081155"]["Value"] == [str(good.SOPInstanceUID)]
    assert reasons(body) == [0x0122, 0xC122, 0xC000, 0xC000]
    assert len(instances(db)) == 1
    assert send(lying, study="1.2.3.4").status_code == 409
    assert send(b"x", media_type="image/jpeg").status_code == 409
    assert not list((archive().root / "incoming").rglob("*.part"))


def test_a_disk_that_does_not_answer_fails_each_part_by_itself(
    send: Send, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, answers = archive().free_bytes, iter([True, True, False])

    def free() -> int:
        if next(answers):
            return good()
        raise StorageError("It does not answer.")

    monkeypatch.setattr(archive(), "free_bytes", free)
    answer = send(file(ultrasound()), file(ultrasound()))
    assert answer.status_code == 202 and reasons(answer.json()) == [0xA700]
    assert len(instances(db)) == 1


def test_data_set_and_file_meta_must_agree(send: Send, db: Database) -> None:
    dataset = ultrasound()
    data = file(dataset)
    position = data.index(str(dataset.SOPInstanceUID).encode())
    forged = data[:position] + b"9" + data[position + 1 :]  # in the File Meta Information alone
    answer = send(forged)
    assert answer.status_code == 409 and reasons(answer.json()) == [0xA900]
    assert not instances(db)


def test_duplicates_and_conflicts(send: Send, db: Database) -> None:
    dataset = ultrasound()
    assert send(file(dataset), file(dataset)).status_code == 200
    assert send(file(dataset)).status_code == 200
    assert len(instances(db)) == 1
    dataset.PixelData = os.urandom(32 * 48)
    assert send(file(dataset)).status_code == 200
    assert len(instances(db)) == 2 and all(row.conflict for row in instances(db))


def test_a_body_that_ends_early_keeps_what_was_whole(send: Send, db: Database) -> None:
    assert send(b"x" * 100, closed=False).status_code == 409
    answer = send(file(ultrasound()), file(ultrasound()), closed=False)
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == len(instances(db)) >= 1


def test_a_study_that_is_stored_into_is_named_by_its_uid(send: Send, db: Database) -> None:
    """The audit trail keeps what the address says: never a name."""
    assert send(file(ultrasound()), study="DOE^Jane").status_code == 422
    assert not instances(db)
    with db.read() as session:
        assert not audit.search(session, action="dicomweb.store")


def test_who_may_store(server: Server, send: Send, db: Database) -> None:
    data = file(ultrasound(InstitutionName="North"))
    import requests

    assert send(data, session=requests.Session()).status_code == 401
    assert send(data, session=server.session(Role.SONOGRAPHER, "read")).status_code == 403
    assert send(data, session=server.session(Role.VIEWER, "store")).status_code == 403
    south = send(data, session=server.session(Role.SONOGRAPHER, "store", "South"))
    assert south.status_code == 409 and reasons(south.json()) == [0x0124]
    assert not instances(db)
    gateway = server.session(Role.SONOGRAPHER, "store", "North")
    assert send(data, session=gateway).status_code == 200
    assert gateway.get(f"{server.url}/studies", timeout=10).status_code == 403  # it may send, and sees nothing


def test_an_account_of_one_site_adds_nothing_to_what_is_anothers(server: Server, send: Send, db: Database) -> None:
    north = ultrasound(InstitutionName="North")
    assert send(file(north)).status_code == 200
    gateway = server.session(Role.SONOGRAPHER, "store", "South")
    into_its_study = ultrasound(InstitutionName="South", StudyInstanceUID=north.StudyInstanceUID)
    another_version = ultrasound(InstitutionName="South", SOPInstanceUID=north.SOPInstanceUID)
    for each in (into_its_study, another_version):
        answer = send(file(each), session=gateway)
        assert answer.status_code == 409 and reasons(answer.json()) == [0x0124]
    assert [each.conflict for each in instances(db)] == [False]
    assert send(file(ultrasound(InstitutionName="South")), session=gateway).status_code == 200


def test_above_the_watermark(send: Send, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_DISK_RESERVE_MB", "1000000000")
    settings.cache_clear()
    answer = send(file(ultrasound()))
    assert answer.status_code == 503 and reasons(answer.json()) == [0xA700] and answer.headers["Retry-After"]
    assert not instances(db)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/dicom", 415),
        ('multipart/related; type="application/dicom+json"; boundary=b0', 415),
        ("multipart/related", 400),
    ],
)
def test_other_bodies_are_refused(content_type: str, status: int, server: Server) -> None:
    answer = server.session().post(
        f"{server.url}/studies", data=b"--b0--\r\n", headers={"Content-Type": content_type}, timeout=10
    )
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"


def test_parts_are_the_same_however_they_are_cut() -> None:
    class Collect:
        def __init__(self) -> None:
            self.parts: list[bytes] = []
            self.largest = 0

        def begin(self, media_type: str) -> None:
            assert media_type == "application/dicom"
            self.parts.append(b"")

        def write(self, data: memoryview) -> None:
            self.parts[-1] += data
            self.largest = max(self.largest, len(data))

        def end(self) -> None:
            self.parts[-1] += b"|"

    wanted = [os.urandom(5000), b"\r\n--b", b"", b"-b0\r\n" * 3 + b"\r\n--b1--\r\n\r\n"]
    body = (
        b"".join(b"--b0\r\nContent-Type: application/dicom\r\n\r\n" + each + b"\r\n" for each in wanted) + b"--b0--\r\n"
    )
    for size in (1, 2, 7, 64, 1000, len(body)):
        collect = Collect()
        reader = Reader(b"b0", collect)
        for at in range(0, len(body), size):
            reader.feed(body[at : at + size])
        assert reader.complete and collect.parts == [each + b"|" for each in wanted]
        assert collect.largest <= max(size, 8)


def test_the_same_instance_by_both_doors_is_one(send: Send, db: Database) -> None:
    """What C-STORE would have entered under this digest is found again."""
    from tests.archive.shelf import shelve

    dataset = ultrasound()
    row = shelve(db, archive(), dataset)
    out = file(dataset)
    assert dcmread(BytesIO(out)).SOPInstanceUID == row.sop_instance_uid
    assert send(out).status_code == 200
    assert [each.id for each in instances(db)] == [row.id]


def test_more_parts_than_an_answer_can_name_are_not_taken(
    send: Send, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part, were it empty, has its line in the answer, which is in memory."""
    monkeypatch.setattr("service.dicomweb.store.MOST_PARTS", 3)
    some = send(file(ultrasound()), file(ultrasound()), file(ultrasound()), file(ultrasound()))
    assert some.status_code == 202 and len(some.json()["00081199"]["Value"]) == 3
    assert len(instances(db)) == 3
    none = send(*[b""] * 500)
    assert none.status_code == 409 and len(reasons(none.json())) <= 4
