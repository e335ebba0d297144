"""From the previous release to this one and back, under load, on a database that the previous release has filled."""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

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
    assert _verdicts(house, old) == as_judged

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
    assert _verdicts(house, old) == as_judged
    again = send([write_image(tmp_path, study)], Node("SONOMARK", "127.0.0.1", house.ports["dicom"]))
    assert [one.status for one in again] == [0]
    house.settled(len(old) + len(sender.acknowledged) + 1)
