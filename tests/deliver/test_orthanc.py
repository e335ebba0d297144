"""Reports, masks and rejection notes in a real Orthanc, as another system sees them."""

import json
import shutil
import subprocess
import time
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from service.db import deliveries, reviews, studies, users, verdicts
from service.db.session import Database
from service.db.tables import Decision, Delivery, DeliveryState, Role
from service.deliver.outbox import Outbox
from service.settings import settings
from tests.ports import free_port
from tests.review import ward

ORTHANC = shutil.which("Orthanc", path="/usr/bin:/usr/sbin:/usr/local/sbin")


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """DICOM and HTTP ports of an empty Orthanc."""
    if ORTHANC is None:
        pytest.skip("orthanc is not installed")
    dicom, http = free_port(), free_port()
    config = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    server = subprocess.Popen(
        [ORTHANC, str(tmp_path / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{http}/system", timeout=1)
            break
        except OSError:
            time.sleep(0.1)
    yield dicom, http
    server.terminate()
    server.wait(20)


def ask(http: int, path: str) -> bytes:
    return urllib.request.urlopen(f"http://127.0.0.1:{http}{path}", timeout=5).read()


def test_all_three_are_stored_and_read_again(
    db: Database, orthanc: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dicom, http = orthanc
    for name in ("REPORT_TO", "MASKS_TO", "REJECTIONS_TO"):
        monkeypatch.setenv(f"SONOMARK_{name}", f"ORTHANC@127.0.0.1:{dicom}")
    settings.cache_clear()
    uid = ward.admit(db, 1)
    with db.begin() as session:
        study = studies.brief(session, uid)
        standing = verdicts.standing(session, study.id)
        assert standing is not None
        deliveries.plan_verdict(session, study, standing)
        anna = users.create_user(session, "anna", Role.REVIEWER)
        reviews.decide(session, study, anna, Decision.RETAKE, "body_marker", "", study.version)
        session.execute(update(Delivery).values(next_at=Delivery.created_at))  # ten seconds later
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Outbox(db).round() == 3
    with db.read() as session:
        assert {row.state for row in deliveries.newest(session)} == {DeliveryState.DELIVERED}
    stored = json.loads(ask(http, "/instances?expand"))
    assert sorted(one["MainDicomTags"].get("SOPInstanceUID", "") != "" for one in stored) == [True] * 3
    series = json.loads(ask(http, "/series?expand"))
    assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["KO", "SEG", "SR"]
    assert len(json.loads(ask(http, "/studies"))) == 1  # they joined the study of the images they speak of
    report = next(one for one in series if one["MainDicomTags"]["Modality"] == "SR")
    file = tmp_path / "back.dcm"
    file.write_bytes(ask(http, f"/instances/{report['Instances'][0]}/file"))
    if shutil.which("dsrdump"):
        done = subprocess.run(["dsrdump", str(file)], capture_output=True, text=True, timeout=60)
        assert "breast-body-marker" in done.stdout and "non compliant" in done.stdout
