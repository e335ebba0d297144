"""An archive in a bucket: durable here first, in the bucket soon, never lost in between, never over a winner."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from service.archive import bucket as buckets
from service.archive import outbox
from service.archive.bucket import Bucket
from service.archive.remote import RemoteStore
from service.archive.store import archive, instance_key
from service.doctor import examine
from service.errors import ConfigurationError, NotArchived, NotFound, OutOfSpace, StorageError, Unreadable
from service.settings import settings
from tests.archive.conftest import S3Server, age, objects, take_in
from tests.archive.test_receiving import wait_until
from tests.faults.disks import loop_disk, tmpfs

KEY = instance_key("ab" * 32)


def test_what_is_taken_in_waits_here_and_goes_up(remote: RemoteStore, s3: S3Server) -> None:
    take_in(remote, KEY, b"image")
    assert objects(s3) == {}
    assert remote.exists(KEY) and remote.size(KEY) == 5
    assert list(remote.keys("instances")) == [KEY]
    assert not remote.drain(0)
    assert remote.outbox.upload() == 1
    assert objects(s3) == {f"sonomark/{KEY}": b"image"}
    assert remote.outbox.backlog() == (0, 0.0) and remote.drain(0)
    assert b"".join(remote.stream(KEY)) == b"image"
    assert remote.read(KEY, 1, 3) == b"mag"


def test_an_outage_keeps_objects_here(remote: RemoteStore, s3: S3Server) -> None:
    s3.stop()
    try:
        take_in(remote, KEY, b"image")
        with pytest.raises(StorageError):
            remote.outbox.upload()
        assert remote.outbox.backlog()[0] == 1
        assert remote.path(KEY).read_bytes() == b"image"
        with pytest.raises(StorageError):
            remote.check()
    finally:
        s3.start()
    # Another process finds what the first one left.
    successor = RemoteStore(remote.root, remote.bucket, 1 << 20)
    assert successor.outbox.upload() == 1
    assert objects(s3) == {f"sonomark/{KEY}": b"image"}


def test_a_file_that_cannot_be_read_keeps_no_other_from_the_bucket(remote: RemoteStore, s3: S3Server) -> None:
    first, *others = [instance_key(f"{number:064x}") for number in range(5 * outbox.AT_ONCE)]
    take_in(remote, first, b"image")
    ill = remote.outbox.find(first)
    assert ill is not None
    ill.unlink()
    ill.mkdir()  # opening it fails, as reading from a bad sector does
    for key in others:
        take_in(remote, key, b"image")
    assert remote.outbox.upload() == len(others)
    assert remote.outbox.waiting() == [first]
    assert remote.outbox.upload() == 0
    take_in(remote, KEY, b"image")
    assert remote.outbox.upload() == 1


def test_another_machine_reads_by_way_of_the_bucket(remote: RemoteStore, s3: S3Server, tmp_path: Path) -> None:
    elsewhere = RemoteStore(tmp_path / "elsewhere", remote.bucket, 1 << 20)
    take_in(remote, KEY, b"image")
    with pytest.raises(NotArchived, match="not in the bucket"):
        elsewhere.path(KEY)  # not up yet: a worker tries again, and does not count it against the instance
    remote.outbox.upload()
    assert elsewhere.path(KEY).read_bytes() == b"image"
    assert not list((elsewhere.root / "incoming").rglob("*.part"))
    elsewhere.put("masks/1/1.png", b"mask")
    assert remote.get("masks/1/1.png") == b"mask"


def test_a_copy_that_cannot_be_read_is_fetched_anew(remote: RemoteStore, s3: S3Server) -> None:
    take_in(remote, KEY, b"image")
    unreadable = remote.place(KEY).stat().st_ino

    def read(path: Path) -> bytes:
        if path.stat().st_ino == unreadable:
            raise Unreadable("It could not be read: Input/output error.")
        return path.read_bytes()

    with pytest.raises(Unreadable):  # the bucket has nothing yet: the copy here is the only one, and stays
        remote.reading(KEY, read)
    assert remote.place(KEY).exists()
    remote.outbox.upload()
    assert remote.reading(KEY, read) == b"image"
    assert not list((remote.root / "incoming").rglob("*.part"))
    s3.client().delete_object(Bucket="house", Key=f"sonomark/{KEY}")
    with pytest.raises(NotArchived):
        remote.fetch_anew(KEY)
    assert remote.place(KEY).exists()


def test_the_first_one_wins(remote: RemoteStore, s3: S3Server, tmp_path: Path) -> None:
    s3.client().put_object(Bucket="house", Key=f"sonomark/{KEY}", Body=b"winner")
    take_in(remote, KEY, b"other head, same data set")
    remote.outbox.upload()
    assert objects(s3) == {f"sonomark/{KEY}": b"winner"}
    assert remote.mend(KEY)
    assert objects(s3) == {f"sonomark/{KEY}": b"other head, same data set"}


def test_large_objects_go_up_in_parts(remote: RemoteStore, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PART", 5 << 20)
    data = os.urandom(11 << 20)
    take_in(remote, KEY, data)
    remote.outbox.upload()
    assert objects(s3) == {f"sonomark/{KEY}": data}
    assert s3.client().head_object(Bucket="house", Key=f"sonomark/{KEY}")["ETag"].endswith('-3"')
    take_in(remote, KEY, b"x" + data[1:])
    remote.outbox.upload()  # refused at the end, by the same condition, and forgotten
    assert objects(s3) == {f"sonomark/{KEY}": data}
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket="house")


def test_the_cache_is_bounded_and_never_drops_what_the_bucket_lacks(remote: RemoteStore, s3: S3Server) -> None:
    small = RemoteStore(remote.root, remote.bucket, 300_000)
    keys = [instance_key(f"{number:02x}" * 32) for number in range(6)]
    for key in keys[:3]:
        take_in(small, key, os.urandom(100_000))
    for key in keys[:3]:
        age(small.place(key), 3600)
    take_in(small, keys[3], os.urandom(100_000))
    assert all(small.place(key).exists() for key in keys[:4])  # owed to the bucket
    small.outbox.upload()
    for number, key in enumerate(keys[:4]):
        age(small.place(key), 7200 - 600 * number)
    small.path(keys[0])  # used now
    take_in(small, keys[4], os.urandom(100_000))
    assert [small.place(key).exists() for key in keys[:5]] == [True, False, False, True, True]
    assert len(small.path(keys[1]).read_bytes()) == 100_000  # and back from the bucket


def test_deleting_waits_for_the_upload(remote: RemoteStore, s3: S3Server) -> None:
    take_in(remote, KEY, b"image")
    with pytest.raises(StorageError, match="on its way"):
        remote.delete(KEY)
    remote.outbox.upload()
    remote.delete(KEY)
    assert objects(s3) == {} and not remote.place(KEY).exists()
    with pytest.raises(NotFound):
        remote.bucket.fetch(KEY, remote.incoming())


def test_wrong_credentials_and_missing_buckets_are_named(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert archive().check().startswith("s3://house/sonomark/")
    with pytest.raises(ConfigurationError, match="no bucket nowhere"):
        Bucket("s3://nowhere", settings()).check()
    with pytest.raises(ConfigurationError, match="names no bucket"):
        Bucket("s3:///prefix", settings())
    s3.ask_for_credentials()
    with pytest.raises(ConfigurationError, match="refuses these credentials"):
        archive().check()
    checks = {check.name: check for check in examine(settings())}
    assert not checks["archive"].ok
    assert "SONOMARK_S3_ACCESS_KEY" in str(checks["archive"]) and "secret'" not in str(checks["archive"])


class Gateway(BaseHTTPRequestHandler):
    """A proxy in front of a bucket that has lost what is behind it for a while: 404, and no word of S3."""

    lost, seen = True, 0

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(404 if self.lost else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        type(self).seen += 1

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Gateway]]:
    handler = type("Gateway", (Gateway,), {"lost": True, "seen": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SONOMARK_S3_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    settings.cache_clear()
    yield handler
    server.shutdown()
    server.server_close()


def test_no_answer_of_the_bucket_ends_the_uploads(gateway: type[Gateway], tmp_path: Path) -> None:
    """404 to a put once ended the thread that uploads, and nobody said so."""
    store = RemoteStore(tmp_path / "archive", Bucket("s3://house/sonomark", settings()), 1 << 20)
    store.outbox.start()
    take_in(store, KEY, b"image")
    wait_until(lambda: gateway.seen > 0)
    time.sleep(0.5)
    gateway.lost = False
    store.outbox.ring()
    wait_until(lambda: store.outbox.backlog()[0] == 0, timeout=15)


def test_what_a_killed_process_left_in_the_outbox_goes(remote: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a name once stayed for ever, and with it the bytes, whatever a policy released."""
    take_in(remote, KEY, b"image")
    remote.outbox.upload()
    left = remote.outbox.folder / f"0123456789abcdef{outbox.UNFINISHED}"
    left.hardlink_to(remote.place(KEY))
    monkeypatch.setattr(outbox, "UNFINISHED_S", 0.0)
    remote.outbox.start()
    wait_until(lambda: not left.exists(), timeout=5)
    assert remote.place(KEY).stat().st_nlink == 1


def test_a_full_disk_of_this_machine_is_no_fault_of_the_instance(remote: RemoteStore, tmp_path: Path) -> None:
    """A worker hands the analysis back uncounted for it; the raw error once counted, up to the quarantine."""
    take_in(remote, KEY, os.urandom(3 << 20))
    remote.outbox.upload()
    with tmpfs(tmp_path / "small", "2m") as folder:
        elsewhere = RemoteStore(folder, remote.bucket, 1 << 30)
        with pytest.raises(OutOfSpace):
            elsewhere.path(KEY)
        os.close(elsewhere._own[1] if elsewhere._own else -1)


FILED_AND_CUT_OFF = """
import os, sys
from pathlib import Path
from service.archive.bucket import Bucket
from service.archive.remote import RemoteStore
from service.errors import StorageError
from service.settings import settings
from tests.faults.disks import LoopDisk

folder, key = Path(sys.argv[1]), sys.argv[2]
store = RemoteStore(folder / "archive", Bucket("s3://house/sonomark", settings()), 1 << 20)
temporary = store.incoming()
temporary.write_bytes(b"image" * 40_000)
add = store.outbox.add

def add_and_cut(waiting):
    add(waiting)
    # Another file's sync takes the new name along, as the file system's own journal does every five seconds.
    with (folder / "another").open("wb") as another:
        another.write(b"x")
        another.flush()
        os.fsync(another.fileno())
    LoopDisk(folder, folder).cut_power()

store.outbox.add = add_and_cut
try:
    store.file_all([(temporary, key)])
except StorageError:
    print("cut off")
"""


def test_a_power_cut_leaves_no_name_in_the_outbox_without_its_bytes(s3: S3Server, tmp_path: Path) -> None:
    """The next start uploads by these names, and never again what the bucket has: not even half a file."""
    with loop_disk(tmp_path / "disk", 64) as disk:
        command = [sys.executable, "-c", FILED_AND_CUT_OFF, disk.folder, KEY]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "cut off\n"
        disk.restore_power()
        waiting = disk.folder / "archive" / "outbox" / KEY.replace("/", "~")
        assert not waiting.exists() or waiting.read_bytes() == b"image" * 40_000
