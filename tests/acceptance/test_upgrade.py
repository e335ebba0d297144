"""From the previous release to this one and back, under load, on a database that the previous release has filled."""

import io
import json
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import create_engine, text

from service.deliver.send import Node, send
from tests.acceptance.production import ROLES, Production
from tests.acceptance.test_production import Sender, nothing_lost_nothing_doubled, write_image
from tests.deploy import compose
from tests.tiny_network import write_weights

pytestmark = pytest.mark.acceptance

PREVIOUS = "b1c7ce6"  # 0.1.0
PREVIOUS_SCHEMA = "0001"


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the previous release."""
    folder = tmp_path_factory.mktemp("previous")
    packed = subprocess.run(["git", "archive", PREVIOUS], cwd=compose.HOUSE, capture_output=True)
    if packed.returncode:
        pytest.skip(f"the commit of the previous release, {PREVIOUS}, is not in this checkout's history")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def house(previous: Path, tmp_path: Path) -> Iterator[Production]:
    """The previous release in production."""
    weights = write_weights(tmp_path / "weights")
    production = Production(SONOMARK_NETWORK=str(weights), SONOMARK_STUDY_SETTLE_S="2")
    production.code = dict.fromkeys((*ROLES, "migrate"), previous)
    try:
        yield production.start()
    finally:
        production.stop()


def _verdicts(house: Production, uids: set[str]) -> dict[str, str]:
    engine = create_engine(house.database_url())
    standing = text(
        "SELECT i.sop_instance_uid, v.verdict FROM verdicts v JOIN instances i ON i.id = v.instance_id"
        " WHERE v.superseded_at IS NULL"
    )
    with engine.connect() as connection:
        found = {uid: verdict for uid, verdict in connection.execute(standing) if uid in uids}
    engine.dispose()
    return found


def _review(house: Production, study: str) -> None:
    """A person's word on the study, as the release of the day takes it."""
    found = house.until(lambda: _settled(house, study), 60, "settled")
    body = json.dumps({"decision": "confirm", "note": "seen by the old release", "version": found["version"]})
    token = house.sonomark("user", "token", "reader").splitlines()[-1]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{house.ports['http']}/api/studies/{study}/reviews"
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=30) as answer:
        assert answer.status in (200, 201)


def _settled(house: Production, study: str) -> dict[str, Any] | None:
    found: dict[str, Any] = house.get(f"/api/studies/{study}")
    return found if found.get("settled") else None


def _decided(house: Production, study: str) -> list[tuple[str, str]]:
    engine = create_engine(house.database_url())
    asked = text(
        "SELECT r.decision, r.note FROM reviews r JOIN studies s ON s.id = r.study_id WHERE study_instance_uid = :u"
    )
    with engine.connect() as connection:
        found = [(decision, note) for decision, note in connection.execute(asked, {"u": study})]
    engine.dispose()
    return found


def _assessed(house: Production, name: str) -> int:
    return sum(event["event"] == "assessed" for event in house.events(name))


def test_upgrade_under_load_side_by_side_and_back(house: Production, previous: Path, tmp_path: Path) -> None:
    study = str(generate_uid())
    before = send(
        [write_image(tmp_path, study, marked=n % 2 == 0) for n in range(6)],
        Node("SONOMARK", "127.0.0.1", house.ports["dicom"]),
        calling_ae_title="US01",
    )
    house.settled(6)
    old = {one.sop_instance_uid for one in before}
    as_judged = _verdicts(house, old)
    assert as_judged.keys() == old
    _review(house, study)
    decided = _decided(house, study)
    assert [decision for decision, _ in decided] == ["confirm"]

    with Sender(house, tmp_path, write_image) as sender:
        # The schema first, while every role is still the old one; then one role after the other.
        del house.code["migrate"]
        house.run_once("migrate")
        house.services["work-next"] = house.services["work-cpu"]
        house.ports["work-next"] = house.ports["work-cpu"] + 1
        house.start_service("work-next")
        done = _assessed(house, "work-cpu")
        house.until(lambda: _assessed(house, "work-next") > 3, 90, "assessed by a new worker")
        house.until(lambda: _assessed(house, "work-cpu") > done + 3, 90, "assessed by an old worker beside it")
        for role in ("work-cpu", "sweep", "review", "receive"):
            del house.code[role]
            house.restart(role)
            house.until(lambda role=role: house.healthy(role), 90, f"the new {role} healthy")  # type: ignore[misc]
    assert len(sender.acknowledged) > 20, sender.refused
    nothing_lost_nothing_doubled(house, sender.acknowledged, len(old))
    assert (_verdicts(house, old), _decided(house, study)) == (as_judged, decided)

    # And back: the schema of the previous release, its code on it, and nothing acknowledged is missing.
    for role in (*ROLES, "work-next"):
        house.stop_service(role)
    program = f"from service.db import schema; schema.downgrade('{PREVIOUS_SCHEMA}')"
    down = subprocess.run(
        [sys.executable, "-c", program], env=house.environment("migrate"), cwd=compose.HOUSE, capture_output=True
    )
    assert down.returncode == 0, down.stderr.decode()
    for role in ROLES:
        house.code[role] = previous
        house.start_service(role)
        house.until(lambda role=role: house.healthy(role), 90, f"the old {role} healthy")  # type: ignore[misc]
    nothing_lost_nothing_doubled(house, sender.acknowledged, len(old))
    assert (_verdicts(house, old), _decided(house, study)) == (as_judged, decided)
    again = send([write_image(tmp_path, study)], Node("SONOMARK", "127.0.0.1", house.ports["dicom"]))
    assert [one.status for one in again] == [0]
    house.settled(len(old) + len(sender.acknowledged) + 1)
