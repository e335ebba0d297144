"""P2, P3 and P5: power cuts, full and failing disks. Success means on disk, and a disk that fails is never Success."""

import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tests.faults import checkers, tracing
from tests.faults.challenges import wait_for_trust
from tests.faults.disks import loop_disk, run, tmpfs
from tests.faults.images import Image, image, numbered
from tests.faults.ledger import Ledger
from tests.faults.parts import Parts, free_port, listens
from tests.faults.sender import OUT_OF_RESOURCES, SUCCESS, Load, send

pytestmark = pytest.mark.acceptance
MakeParts = Callable[..., Parts]
POWER_CUTS = int(os.environ.get("SONOMARK_POWER_CUTS", "10"))
SMALL = ((64, 56), (128, 96))
MORE_SYNCS_THAN_THERE_ARE = 40


@pytest.mark.timeout(900)
def test_power_cuts_lose_nothing_acknowledged(make_parts: MakeParts, tmp_path: Path, seed: int) -> None:
    """Database and archive on an ext4 whose power is cut at random moments under load."""
    moments = random.Random(seed)
    with loop_disk(tmp_path / "disk", megabytes=4096) as disk:
        house = make_parts(data=disk.folder / "data")
        ledger = house.new_ledger("power")
        for _ in range(POWER_CUTS):
            house.start("receive")
            with Load(house.dicom_port, ledger, moments.randrange(1 << 30)):
                known = len(ledger.history().acknowledged)
                house.until(lambda known=known: len(ledger.history().acknowledged) > known, 60, "acknowledged")
                time.sleep(moments.uniform(0.0, 1.5))
                cut_at = time.time()
                disk.cut_power()
                house.kill("receive")
            ledger.cut(cut_at)
            disk.restore_power()
            inventory = house.inventory()
            checkers.no_loss(ledger, inventory)
            checkers.no_invention(ledger, inventory)
        house.start("receive")
        house.start("work")
        house.start("sweep")
        checkers.settled(ledger, house.inventory, 180)
        acknowledged = len(ledger.history().acknowledged)
        print(f"{acknowledged} acknowledged through {POWER_CUTS} power cuts")
        assert acknowledged > POWER_CUTS
        house.stop()
        disk.unmount()
        run("e2fsck", "-f", "-n", disk.image)
        disk.mount()


def test_a_full_disk_is_said_and_left(make_parts: MakeParts, tmp_path: Path, seed: int) -> None:
    """Everything on 24 MB; somebody then makes room, and the next store succeeds without a restart."""
    with tmpfs(tmp_path / "small", "24m") as folder:
        house = make_parts(data=folder / "data")
        _fill_and_relieve(house, folder, "size=96m", seed)


def test_a_disk_without_inodes_is_said_and_left(make_parts: MakeParts, tmp_path: Path, seed: int) -> None:
    with tmpfs(tmp_path / "small", "96m", inodes=400) as folder:
        house = make_parts(data=folder / "data")
        _fill_and_relieve(house, folder, "size=256m,nr_inodes=4000", seed)


def _fill_and_relieve(house: Parts, folder: Path, relief: str, seed: int) -> None:
    ledger = house.new_ledger("full")
    house.start("receive")
    images = numbered(seed, ((64, 56), (320, 240)))
    refused = []
    while not refused:
        batch = list(islice(images, 20))
        answers = send(house.dicom_port, ledger, batch)
        assert set(answers) <= {SUCCESS, OUT_OF_RESOURCES}
        refused = [one for one, status in zip(batch, answers, strict=True) if status != SUCCESS]
        assert len(ledger.history().invoked) < 1500, "the disk never fills"
    inventory = house.inventory()
    checkers.no_loss(ledger, inventory)
    checkers.no_invention(ledger, inventory)
    run("mount", "-o", f"remount,{relief}", folder)
    assert send(house.dicom_port, ledger, refused) == [SUCCESS] * len(refused)
    house.start("work")
    house.start("sweep")
    checkers.settled(ledger, house.inventory, 180)
    house.stop()


def test_a_full_disk_under_the_database_alone(make_parts: MakeParts) -> None:
    """ENOSPC on SQLite's log only: the archive must not keep what the database could not."""
    tracing.require_strace()
    house = make_parts()
    ledger = house.new_ledger("wal")
    log = house.data / "sonomark.sqlite-wal"
    images = [image() for _ in range(6)]
    house.start("receive", prefix=tracing.injecting("pwrite64", "error=ENOSPC:when=20+", only=[log]))
    answers = send(house.dicom_port, ledger, images)
    assert OUT_OF_RESOURCES in answers and set(answers) <= {SUCCESS, OUT_OF_RESOURCES}
    house.kill("receive")
    _recovers(house, ledger, images)


def test_a_read_only_archive_is_said_and_left(make_parts: MakeParts, tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk") as disk:
        house = make_parts(ARCHIVE_URL=str(disk.folder / "archive"))
        ledger = house.new_ledger("read-only")
        images = [image() for _ in range(4)]
        house.start("receive")
        assert send(house.dicom_port, ledger, images[:1]) == [SUCCESS]
        disk.turn_read_only()
        answers = send(house.dicom_port, ledger, images)
        assert set(answers[1:]) == {OUT_OF_RESOURCES}, answers
        house.kill("receive")
        disk.repair()
        _recovers(house, ledger, images)
        house.stop()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["transient", "persistent"])
def test_a_failing_sync_is_never_success(make_parts: MakeParts, tmp_path: Path, kind: str) -> None:
    """The Nth sync fails, N = 1, 2, 3 … until none does; then the power is cut, for what counts is the disk."""
    tracing.require_strace()
    fault = "error=EIO:when={}" if kind == "transient" else "error=EIO:when={}+"
    with loop_disk(tmp_path / "disk") as disk:
        house = make_parts(data=disk.folder / "data")
        ledger = house.new_ledger("sync")
        failed = 0
        for number in range(1, MORE_SYNCS_THAN_THERE_ARE):
            images = [image() for _ in range(3)]
            prefix = tracing.injecting("fsync,fdatasync", fault.format(number))
            house.start("receive", prefix=prefix, wait=False)
            if not _listening_or_gone(house):
                continue  # a door that cannot put its own folders on disk does not open
            answers = send(house.dicom_port, ledger, images)
            assert set(answers) <= {SUCCESS, OUT_OF_RESOURCES}, answers
            disk.cut_power()
            house.kill("receive")
            disk.restore_power()
            inventory = house.inventory()
            checkers.no_loss(ledger, inventory)
            checkers.no_invention(ledger, inventory)
            failed += OUT_OF_RESOURCES in answers
            if answers == [SUCCESS] * 3 and failed:
                break
        assert failed >= 2, "no sync of an instance was ever made to fail"
        house.start("receive")
        house.start("work")
        house.start("sweep")
        checkers.settled(ledger, house.inventory, 120)
        house.stop()


def test_a_door_whose_disk_failed_stays_shut_until_it_has_proven_itself(make_parts: MakeParts) -> None:
    """Each sync of SQLite's log fails for a while: refused throughout, said everywhere, and over without a restart."""
    tracing.require_strace()
    port = free_port()
    house = make_parts()
    ledger = house.new_ledger("doubt")
    pid = house.start("receive", METRICS_PORT=str(port))
    assert send(house.dicom_port, ledger, [image() for _ in range(3)]) == [SUCCESS] * 3
    log, trace = house.data / "sonomark.sqlite-wal", house.logs / "trace"
    with tracing.window(pid, "fsync,fdatasync", "error=EIO", only=[log], record=trace):
        for _ in range(3):
            answers = send(house.dicom_port, ledger, [image() for _ in range(3)])
            assert answers == [OUT_OF_RESOURCES] * 3, answers
        house.until(lambda: "storage" in _ready(port), 15, "not ready")
        assert "sonomark_storage_suspended 1.0" in _ask(port, "/metrics")
        assert "takes nothing in" in house.sonomark("doctor", status=1)
        house.until(lambda: "storage failed its test" in house.log("receive").read_text(), 15, "tested in vain")
    assert not tracing.synced_again(trace, house.data)
    wait_for_trust(house, ledger)
    house.until(lambda: _ready(port) == {}, 15, "ready again")
    assert "sonomark_storage_suspended 0.0" in _ask(port, "/metrics")
    house.start("work")
    house.start("sweep")
    checkers.settled(ledger, house.inventory, 60)


def test_a_commit_whose_sync_failed_leaves_nothing_half(make_parts: MakeParts) -> None:
    """The rows of a refused instance may be found in SQLite's log after a crash: then its bytes are there as well."""
    tracing.require_strace()
    house = make_parts()
    ledger = house.new_ledger("unknown")
    pid = house.start("receive")
    assert send(house.dicom_port, ledger, [image()]) == [SUCCESS]
    with tracing.window(pid, "fsync,fdatasync", "error=EIO", only=[house.data / "sonomark.sqlite-wal"]):
        assert send(house.dicom_port, ledger, [image(), image()]) == [OUT_OF_RESOURCES] * 2
        house.kill("receive")
    house.start("receive")
    house.start("work")
    house.start("sweep")
    checkers.settled(ledger, house.inventory, 60)


def _ready(port: int) -> dict[str, str]:
    """What keeps the role from being ready, by name."""
    checks: dict[str, str] = json.loads(_ask(port, "/readyz"))["checks"]
    return checks


def _ask(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def _listening_or_gone(house: Parts) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not house.runs("receive"):
            house.gone("receive")
            return False
        if listens(house.dicom_port):
            return True
        time.sleep(0.05)
    raise AssertionError(house.tails())


def _recovers(house: Parts, ledger: Ledger, images: list[Image]) -> None:
    house.start("receive")
    house.start("work")
    house.start("sweep")
    assert send(house.dicom_port, ledger, images) == [SUCCESS] * len(images)
    checkers.settled(ledger, house.inventory, 60)
