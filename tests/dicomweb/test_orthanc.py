"""Orthanc's DICOMweb plugin as the other side: it stores to us, searches us, and takes back what it stored."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.db.session import Database
from service.db.tables import Role
from tests.deliver.test_orthanc import ORTHANC
from tests.dicomweb.conftest import Server, file
from tests.ports import free_port
from tests.receive.conftest import instances, ultrasound

PLUGIN = next(Path("/usr").glob("*/orthanc/plugins/libOrthancDicomWeb.so"), None)  # share or lib, by distribution

Ask = Callable[..., Any]


@pytest.fixture
def orthanc(server: Server, tmp_path: Path) -> Iterator[Ask]:
    """An Orthanc that knows us as the DICOMweb server ``us``; ask it over its REST API."""
    if ORTHANC is None or PLUGIN is None:
        pytest.skip("orthanc with its DICOMweb plugin is not installed")
    port = free_port()
    config = {
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "DicomServerEnabled": False,
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {
            "Enable": True,
            "Servers": {
                "us": {
                    "Url": f"{server.url}/",
                    "HttpHeaders": {"Authorization": f"Bearer {server.token(Role.ADMIN, 'admin')}"},
                }
            },
        },
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [ORTHANC, str(tmp_path / "orthanc.json")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TCP_NODELAY": "1"},
    )

    def ask(path: str, body: Any = None, method: str = "") -> Any:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method or None)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    for _ in range(200):
        try:
            ask("/system")
            break
        except OSError:
            time.sleep(0.1)
    yield ask
    process.terminate()
    process.wait(20)


def test_orthanc_stores_searches_and_retrieves(orthanc: Ask, db: Database) -> None:
    first = ultrasound(AccessionNumber="A7")
    second = ultrasound(StudyInstanceUID=first.StudyInstanceUID, SeriesInstanceUID=first.SeriesInstanceUID)
    for dataset in (first, second):
        orthanc("/instances", file(dataset))
    (study,) = orthanc("/studies")
    sent = orthanc("/dicom-web/servers/us/stow", {"Resources": [study], "Synchronous": True})
    assert int(sent["InstancesCount"]) == 2
    assert {row.sop_instance_uid for row in instances(db)} == {str(first.SOPInstanceUID), str(second.SOPInstanceUID)}
    found = orthanc("/dicom-web/servers/us/qido", {"Uri": "/studies", "Arguments": {"AccessionNumber": "A7"}})
    assert str(first.StudyInstanceUID) in json.dumps(found)
    orthanc(f"/studies/{study}", method="DELETE")
    assert orthanc("/instances") == []
    orthanc(
        "/dicom-web/servers/us/retrieve",
        {"Resources": [{"Study": str(first.StudyInstanceUID)}], "Synchronous": True},
    )
    assert len(orthanc("/instances")) == 2
