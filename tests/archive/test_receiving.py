"""A real receiver in front of a small disk, and in front of a bucket: what it acknowledged is never lost."""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.db.session import Database
from service.dicom.header import data_set_position
from service.settings import Settings
from tests.archive.conftest import S3Server, objects
from tests.receive.conftest import StartReceiver, instances, ultrasound
from tests.receive.conftest import start_receiver as start_receiver

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
UPLOAD_POINTS = ("archive.before_upload", "archive.after_upload")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_the_watermark_holds_before_the_disk_is_full(
    start_receiver: StartReceiver, db: Database, small_disk: Path
) -> None:
    """P3: 0xA700 with room still left, nothing half visible, and the next store succeeds once space is back."""
    receiver = start_receiver(ARCHIVE_URL=str(small_disk / "archive"), DISK_RESERVE_MB="6")
    sent = [ultrasound(PixelData=os.urandom(2 << 20)) for _ in range(8)]
    association = receiver.associate()
    statuses = [association.send_c_store(dataset).Status for dataset in sent]
    taken = statuses.index(OUT_OF_RESOURCES)
    assert taken >= 3 and set(statuses[taken:]) == {OUT_OF_RESOURCES}
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize >= 4 << 20  # the refused ones left nothing behind
    files = [path for path in small_disk.rglob("*.*") if path.is_file()]
    assert {path.stem for path in files} == {row.sha256 for row in instances(db)}
    for path in files[:3]:
        path.unlink()  # somebody makes room
    assert association.send_c_store(sent[-1]).Status == SUCCESS
    association.release()


def test_every_upload_failpoint_has_a_kill_test() -> None:
    import re

    import service

    outbox = Path(service.__file__).parent / "archive" / "outbox.py"
    names = set(re.findall(r'fp\("(archive\.\w+)"\)', outbox.read_text()))
    assert names == set(UPLOAD_POINTS)


@pytest.mark.parametrize("point", UPLOAD_POINTS)
def test_killed_while_uploading(
    point: str, start_receiver: StartReceiver, db: Database, house: Settings, s3: S3Server
) -> None:
    """Acknowledged means durable: the next process carries up what the killed one had only on its disk."""
    receiver = start_receiver(FAILPOINTS=f"{point}=kill@2")
    sent = [ultrasound() for _ in range(4)]
    acknowledged = []
    for dataset in sent:
        association = receiver.associate()
        if not association.is_established:
            break
        if association.send_c_store(dataset).get("Status") == SUCCESS:
            acknowledged.append(str(dataset.SOPInstanceUID))
        association.release()
        time.sleep(0.1)
    receiver.process.wait(20)
    assert acknowledged
    receiver.environment.pop("SONOMARK_FAILPOINTS")
    receiver.start()
    assert receiver.store(*sent) == [SUCCESS] * 4
    rows = {row.sop_instance_uid: row for row in instances(db)}
    assert set(acknowledged) <= set(rows) and len(rows) == 4
    wait_until(lambda: len(objects(s3)) == 4)
    assert all(digest_in_bucket(s3, row.archive_key, house.data_dir) == row.sha256 for row in rows.values())
    wait_until(lambda: not list((house.data_dir / "archive/outbox").glob("instances*")))


def test_an_outage_of_the_bucket_does_not_reach_the_cart(
    start_receiver: StartReceiver, db: Database, s3: S3Server
) -> None:
    receiver = start_receiver()
    s3.stop()
    try:
        assert receiver.store(*(ultrasound() for _ in range(3))) == [SUCCESS] * 3
        receiver.wait_for("bucket away, objects wait")
    finally:
        s3.start()
    wait_until(lambda: len(objects(s3)) == 3)
    assert len(instances(db)) == 3


def wait_until(true: Callable[[], bool], timeout: float = 40) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


def digest_in_bucket(s3: S3Server, key: str, scratch: Path) -> str:
    """SHA-256 of the data set in the bucket's object, read with boto3 alone."""
    copy = scratch / "copy.dcm"
    copy.write_bytes(objects(s3)[f"sonomark/{key}"])
    return hashlib.sha256(copy.read_bytes()[data_set_position(copy.read_bytes()) :]).hexdigest()
