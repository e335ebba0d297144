"""From a modality's C-STORE to the flag on a worklist that is open in a browser, and hostile texts in a header."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from service.demo import sample_files
from tests.acceptance.conftest import House
from tests.browser.conftest import CHROMIUM, FLAGS
from tests.browser.test_work import until

pytestmark = pytest.mark.acceptance
playwright_api = pytest.importorskip("playwright.sync_api")
Sender = Callable[..., subprocess.CompletedProcess[str]]

CANARY = '"><img src=x onerror=alert(1)>'
TEXTS = {
    "PatientName": f"{CANARY}^Jane",
    "PatientID": CANARY,
    "AccessionNumber": "<b onclick=a>x",
    "StudyDescription": CANARY,
    "SeriesDescription": CANARY,
    "StationName": "<i onload=a()>",
    "OperatorsName": f"{CANARY}^Op",
    "InstitutionName": CANARY,
    "BodyPartExamined": "<U ONX=1>",
    "ProtocolName": CANARY,
}


@pytest.fixture
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip("no chromium on this machine")
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


def enter(browser: Any, house: House) -> Any:
    """An administrator who signs in by the link that the machine itself gives."""
    house.sonomark("user", "token", "boss")
    link = house.sonomark("user", "sign-in", "boss").stdout.split()[-1]
    page = browser.new_page(base_url=f"http://127.0.0.1:{house.http_port}", viewport={"width": 1280, "height": 720})
    page.goto(link)
    page.click("button")
    page.wait_for_url("**/worklist**")
    return page


def flagged_file(folder: Path) -> Path:
    """A frame of a breast exam without a body marker."""
    return next(path for path in sample_files(folder) if path.name == "sample-2-2.dcm")


def test_a_flag_appears_on_an_open_worklist(
    new_house: Callable[..., House], dcmsend: Sender, tmp_path: Path, browser: Any
) -> None:
    house = new_house().start()
    page = enter(browser, house)
    page.wait_for_selector(".live.on")
    page.evaluate("window.neverReloaded = true")
    begun = time.monotonic()
    assert dcmsend(house.dicom_port, str(flagged_file(tmp_path))).returncode == 0
    until(page, "document.querySelector('#count-flagged').textContent.trim() === '1'", 60)
    print(f"flag on the open worklist {time.monotonic() - begun:.1f} s after dcmsend began (settling: 1 s)")
    assert "1 new study" in page.inner_text("#new-studies") and page.evaluate("window.neverReloaded")
    page.keyboard.press(".")
    page.wait_for_selector("#rows tr.flagged")
    assert "body marker" in page.inner_text("#rows tr").lower()


def test_hostile_texts_in_a_header_stay_texts(
    new_house: Callable[..., House], dcmsend: Sender, tmp_path: Path, browser: Any
) -> None:
    house = new_house().start()
    page = enter(browser, house)
    data_set = dcmread(flagged_file(tmp_path))
    for name, text in TEXTS.items():
        setattr(data_set, name, text)
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = generate_uid(), generate_uid()
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    hostile = tmp_path / "hostile.dcm"
    data_set.save_as(hostile, enforce_file_format=True)
    assert dcmsend(house.dicom_port, str(hostile)).returncode == 0
    house.settled(1)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    study = f"/studies/{data_set.StudyInstanceUID}"
    for path in (
        "/worklist?tab=all",
        study,
        "/flow",
        "/reports?group_by=operator",
        "/audit",
        "/users",
        "/peers",
        "/docs",
    ):
        page.goto(path)
        page.wait_for_timeout(600)
        planted = page.evaluate("document.querySelectorAll('img[src=x], [onclick], [onload], [onerror]').length")
        assert planted == 0, path
    page.goto(study)
    assert '"><img src' in page.inner_text("h1"), "it is shown, as text"
    assert dialogs == []
