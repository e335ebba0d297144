"""The main job from outside: a real sender pushes, a verdict with its evidence comes out."""

import re
import subprocess
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread

from tests.acceptance.conftest import House

pytestmark = pytest.mark.acceptance
Sender = Callable[..., subprocess.CompletedProcess[str]]


def test_demo_prints_verdicts_and_a_sign_in_and_stops_on_one_signal(new_house: Callable[..., House]) -> None:
    house = new_house().start("--demo")
    text = house.until(
        lambda: (t := house.log.read_text(errors="replace")) and "Sign in once" in t and t, 120, "past the demo"
    )
    assert "Body marker" in text
    assert re.search(rf"http://127\.0\.0\.1:{house.http_port}/sign-in/once\?token=\S{{20,}}", text)
    assert house.settled(8)["quarantined"] == 0
    roles = [pid for role in ("receive", "work", "sweep", "review") for pid in house.pids(role)]
    assert len(roles) >= 4
    assert house.stop() == 0
    gone = time.monotonic() + 10
    while (left := [pid for pid in roles if psutil.pid_exists(pid)]) and time.monotonic() < gone:
        time.sleep(0.1)  # orphans are reaped by init, a moment later
    assert not left


def test_every_file_a_sender_can_send_ends_assessed_or_quarantined_with_a_cure(
    new_house: Callable[..., House], dcmsend: Sender, real_data: Path
) -> None:
    house = new_house().start()
    whole_folder = ("-nh", "--scan-directories", "--scan-pattern", "*.dcm")
    sent = dcmsend(house.dicom_port, str(real_data / "dicom"), options=whole_folder)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    # 18 are sent; the two files of one instance that differ in byte order alone arrive in one syntax, as one.
    assert house.settled(17)["acknowledged"] == 17
    headers = [dcmread(path, stop_before_pixels=True) for path in (real_data / "dicom").glob("*.dcm")]
    uids = {header.SOPInstanceUID for header in headers if "SOPInstanceUID" in header}
    seen = 0
    for uid in uids:
        for version in _versions(house, uid):
            seen += 1
            assert version["state"] in ("done", "quarantined")
            if version["state"] == "quarantined":
                assert version["reason"], version
                assert version["cure"], version
    assert seen == 17


def _versions(house: House, uid: str) -> list[dict[str, Any]]:
    """Every stored version of a SOP instance; none when it never arrived."""
    try:
        newest = house.get(f"/api/instances/{uid}")
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return []
    return [house.get(f"/api/instances/{uid}?sha256={version}") for version in newest["versions"]]


def test_first_verdict_follows_the_acknowledgement(
    new_house: Callable[..., House], dcmsend: Sender, tmp_path: Path
) -> None:
    from service.demo import sample_files

    house = new_house().start()
    breast = next(path for path in sample_files(tmp_path) if path.name == "sample-2-2.dcm")
    assert dcmsend(house.dicom_port, str(breast)).returncode == 0
    acknowledged = time.monotonic()
    uid = dcmread(breast, stop_before_pixels=True).SOPInstanceUID
    instance = house.until(
        lambda: (one := house.get(f"/api/instances/{uid}"))["state"] == "done" and one, 30, "assessed"
    )
    print(f"verdict {time.monotonic() - acknowledged:.1f} s after the C-STORE returned")
    assert instance["verdict"] == "non_compliant"
    assert [f["requirement"] for f in instance["findings"] if f["state"] == "missing"]
    assert set(instance["frames"][0]["scores"]) >= {"body_marker", "caliper", "color_box"}


def test_killed_worker_and_receiver_lose_and_double_nothing(
    new_house: Callable[..., House], dcmsend: Sender, tmp_path: Path
) -> None:
    from pydicom.uid import generate_uid

    from service.demo import sample_files

    house = new_house(SONOMARK_LEASE_S="5").start()
    template = dcmread(sample_files(tmp_path)[0])
    folder = tmp_path / "many"
    folder.mkdir()
    uids = []
    for number in range(40):
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        template.InstanceNumber = number
        template.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
        uids.append(template.SOPInstanceUID)
    acknowledged: set[str] = set()
    for round_, victim in enumerate(("work", "receive", "work", "receive")):
        batch = sorted(folder.iterdir())[round_ * 10 : round_ * 10 + 10]
        process = subprocess.Popen(
            ["dcmsend", "-v", "-aec", "SONOMARK", "127.0.0.1", str(house.dicom_port), *map(str, batch)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        time.sleep(0.4)
        house.kill(victim)
        output, _ = process.communicate(timeout=120)
        acknowledged |= _stored(output, batch)
        house.until(lambda: house.status("/readyz") == 200, 60, "ready again")
    house.settled(len(acknowledged))
    for uid in acknowledged:
        versions = _versions(house, uid)
        assert len(versions) == 1
        assert versions[0]["state"] == "done"
    assert acknowledged <= set(uids)


def _stored(output: str, batch: list[Path]) -> set[str]:
    """SOP Instance UIDs that dcmsend saw answered with Success, in the order it sent them."""
    statuses = re.findall(r"Received C-STORE Response \((.*?)\)", output)
    uids = [dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in batch]
    return {uid for uid, status in zip(uids, statuses, strict=False) if status == "Success"}
