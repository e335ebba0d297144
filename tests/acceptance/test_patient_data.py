"""W10: what is known of a patient leaves by the ways that are meant for it, and by no other.

A patient whose every field is a canary goes through success, each refusal, a crash and an unforeseen error; then logs,
metrics, queue, temporary files and error answers are searched for any of them.
"""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread, examples
from pydicom.uid import generate_uid

from tests.acceptance.conftest import House

pytestmark = pytest.mark.acceptance

CANARIES = {
    "PatientName": "ZCANARYNAME^ZQUIETLY",
    "PatientID": "ZCANARYID77",
    "PatientBirthDate": "19310417",
    "AccessionNumber": "ZCANARYACC",
    "StudyDescription": "ZCANARYDESCRIPTION",
    "ReferringPhysicianName": "ZCANARYREFERRER^R",
    "PatientComments": "ZCANARYCOMMENT",
}
# Where patient data belong: the archive with its masks, the database, and the frames decoded for the dashboard.
MEANT_FOR_IT = ("archive", "sonomark.sqlite", "sonomark.sqlite-wal", "sonomark.sqlite-shm", "cache", "frames")


def files(folder: Path) -> dict[str, Path]:
    """The canary patient's files, by what is wrong with them."""
    made = {}
    for name in ("fine", "undecodable", "mismatched", "nested"):
        data = dcmread(examples.get_path("rgb_color"))
        for keyword, value in CANARIES.items():
            setattr(data, keyword, value)
        data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if name == "undecodable":
            data.PixelData = data.PixelData[:100]
        if name == "mismatched":
            data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if name == "nested":
            data.StudyInstanceUID = "1.2.3.ZCANARYNAME"
        made[name] = folder / f"{name}.dcm"
        data.save_as(made[name], enforce_file_format=False)
    return made


def ask(house: House, path: str, token: str, body: bytes | None = None) -> str:
    """The answer to a request, whatever its status."""
    request = urllib.request.Request(f"http://127.0.0.1:{house.http_port}{path}", data=body)
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_no_canary_is_found_where_it_does_not_belong(
    new_house: Callable[..., House],
    dcmsend: Callable[..., subprocess.CompletedProcess[str]],
    weights: Path,
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    house = new_house(SONOMARK_NETWORK=str(weights), TMPDIR=str(scratch), SONOMARK_LOG_LEVEL="debug").start()
    made = files(tmp_path)
    for path in made.values():
        dcmsend(house.dicom_port, str(path))
    house.settled(2)
    house.kill("work")  # a crash
    house.until(lambda: house.status("/readyz") == 200, 60, "ready again")
    token = house.sonomark("user", "token", "boss").stdout.splitlines()[-1]
    uid = json.loads(ask(house, "/api/studies?limit=1", token))["studies"][0]["study_instance_uid"]
    assert "ZCANARYNAME" in ask(house, f"/api/studies/{uid}", token), "the canary did arrive"
    said = json.dumps({"decision": "override", "reason": "no-such", "note": "ZCANARYCOMMENT", "version": 1}).encode()
    refusals = [
        ask(house, "/api/studies?q=ZCANARYNAME&limit=nonsense", token),
        ask(house, "/api/studies/ZCANARYID77", token),
        ask(house, "/accession/ZCANARYACC/x", token),
        ask(house, "/api/studies?cursor=ZCANARYID77", token),
        ask(house, f"/api/studies/{uid}/reviews", token, said),
        ask(house, f"/api/studies/{uid}/reviews", token, b'{"note": "ZCANARYCOMMENT", "version": "x"}'),
    ]
    metrics = ask(house, "/metrics", token)
    house.stop()
    searched = {"refusals": "".join(refusals), "metrics": metrics, "log": house.log.read_text(errors="replace")}
    for path in [*house.data.rglob("*"), *scratch.rglob("*")]:
        inside = path.is_relative_to(house.data) and path.relative_to(house.data).parts[0] in MEANT_FOR_IT
        if path.is_file() and not inside:
            searched[str(path)] = path.read_bytes().decode("latin-1")
    assert len(searched) > 3 and len(searched["log"]) > 500
    needles = [part for value in CANARIES.values() for part in value.split("^") if len(part) > 1]
    found = [(place, needle) for place, text in searched.items() for needle in needles if needle in text]
    assert found == []
