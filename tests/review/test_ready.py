"""Frames are at hand before a flagged study is opened."""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.archive.store import archive
from service.db import studies
from service.db.session import Database
from service.db.tables import Verdict, now
from service.dicom import pixels
from service.review import frames, ready
from service.settings import settings
from tests.review import ward


def kept() -> list[Path]:
    return list((settings().data_dir / "cache" / "frames").rglob("*.webp"))


def test_what_waits_for_a_person_is_decoded_beforehand_and_once(
    client: TestClient, reviewer: TestClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = ward.admit(db, 1, pictures=[ward.rgb(), ward.cine()])
    ward.admit(db, 2, Verdict.COMPLIANT)
    done: OrderedDict = OrderedDict()
    assert ready.make_ready(done, None) == 1 and len(kept()) == 1
    assert ready.make_ready(done, now()) == 0, "the look reaches back over what it has seen"

    def decode(*_: object) -> None:
        raise AssertionError("the page's first frame was decoded while a reader waited")

    monkeypatch.setattr(frames, "read_frames", decode)
    page = reviewer.get(f"/studies/{uid}").text
    address = page.split('fetchpriority="high" href="')[1].split('"')[0].replace("&amp;", "&")
    assert reviewer.get(address).headers["content-type"] == "image/webp"


def test_one_that_cannot_be_decoded_keeps_no_other(client: TestClient, db: Database) -> None:
    done: OrderedDict = OrderedDict()
    began = now()
    assert ready.make_ready(done, None) == 0
    ward.admit(db, 1)
    uid = ward.admit(db, 2, Verdict.INDETERMINATE, pictures=[ward.wide()])
    with db.read() as session:
        stored = archive().path(studies.find(session, uid).instances[0].archive_key)
    data = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(data[:2000] + bytes(len(data) - 2000))
    assert ready.make_ready(done, began) == 1 and len(kept()) == 1
    assert ready.make_ready(done, began) == 0, "nor is it tried again and again"


@pytest.fixture(autouse=True)
def _no_decoders_left() -> Iterator[None]:
    yield
    pixels.close_decoders()
