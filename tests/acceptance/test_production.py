"""What docker-compose.yml starts is what is tested here: a study through it, and every service felled under load."""

import itertools
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid
from sqlalchemy import create_engine, text

from service import demo
from service.deliver.selftest import STEPS
from service.deliver.send import Node, send
from service.errors import PeerError
from tests.acceptance.production import Production
from tests.test_tracing import Collector
from tests.tiny_network import YELLOW

pytestmark = pytest.mark.acceptance
NAME = "Canary^Patient"
CHAOS_SECONDS = int(os.environ.get("SONOMARK_CHAOS_SECONDS", 0))
# Of what the house drained a moment ago on this very machine. Every fifth kill fells the workers: of fifty seconds they
# are away for a dozen, loading their network again, while PostgreSQL or the receiver stop the line for some more.
OFFERED = 0.4
VICTIMS = ("receive", "work-cpu", "sweep", "redis flushed", "postgres")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def house(collector: Collector) -> Iterator[Production]:
    production = Production(SONOMARK_STUDY_SETTLE_S="2", SONOMARK_OTLP_ENDPOINT=collector.url)
    try:
        yield production.start()
    finally:
        production.stop()


class Sender:
    """Stores studies until told to stop, each image again and again until it is acknowledged, as a cart does."""

    def __init__(
        self, house: Production, folder: Path, write: Callable[[Path, str], Path], images_a_second: float = 0.0
    ) -> None:
        """``write`` makes an image of a study in ``folder``; without ``images_a_second`` as fast as they are taken."""
        self._house, self._folder, self._write = house, folder, write
        self._every_s = 4 / images_a_second if images_a_second else 0.0
        self._stop = threading.Event()
        self.acknowledged: set[str] = set()
        self.refused: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Sender":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._every_s, time.monotonic() - 10 * self._every_s)  # makes good what an outage held up
            waiting = [self._write(self._folder, study) for study in [str(generate_uid())] * 4]
            while waiting and not self._stop.is_set():
                waiting = self._store(waiting)

    def _store(self, paths: list[Path]) -> list[Path]:
        """One association; returns what has to be sent again."""
        try:
            sent = send(paths, Node("SONOMARK", "127.0.0.1", self._house.ports["dicom"]), calling_ae_title="US01")
        except (PeerError, OSError) as error:
            self.refused[type(error).__name__] += 1
            time.sleep(0.2)
            return paths
        self.acknowledged |= {one.sop_instance_uid for one in sent if one.status == 0}
        self.refused.update(str(one.status) for one in sent if one.status != 0)
        return [one.path for one in sent if one.status != 0]


def write_image(folder: Path, study: str, marked: bool = True) -> Path:
    frame = np.full((96, 128, 3), 60, np.uint8)
    if marked:
        frame[40, 30:50] = frame[30:50, 40] = YELLOW
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = UltrasoundImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{study[:60]}.1"
    image.PatientName, image.PatientID, image.StationName = NAME, "canary-id", "US01"
    image.Modality, image.StudyDescription = "US", "Breast"
    image.Rows, image.Columns, image.SamplesPerPixel, image.PhotometricInterpretation = 96, 128, 3, "RGB"
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation, image.PlanarConfiguration = 7, 0, 0
    image.PixelData = frame.tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{image.SOPInstanceUID}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


def write_sample(folder: Path, study: str) -> Path:
    """An ultrasound frame of a machine's size, JPEG as it leaves the machine."""
    chosen = {
        "patient": NAME,
        "patient_id": "canary-id",
        "accession": "",
        "description": "Breast",
        "body_part": "BREAST",
    }
    image = demo.make_instance(chosen | {"laterality": "R", "station": "US01", "operator": ""}, "breast-calipers.jpg")
    image.StudyInstanceUID, image.SeriesInstanceUID = study, f"{study[:60]}.1"
    path = folder / f"{image.SOPInstanceUID}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


def test_a_study_gets_its_verdict_and_leaves_one_trail(house: Production, collector: Collector, tmp_path: Path) -> None:
    study = str(generate_uid())
    paths = [write_image(tmp_path, study), write_image(tmp_path, study, marked=False)]
    sent = send(paths, Node("SONOMARK", "127.0.0.1", house.ports["dicom"]), calling_ae_title="US01")
    assert [one.status for one in sent] == [0, 0]
    house.settled(2)
    found = house.until(
        lambda: (one := house.get(f"/api/studies/{study}")).get("verdict") and one, 60, "verdict on the study"
    )
    assert found["verdict"] in ("compliant", "non_compliant", "indeterminate", "not_applicable")
    received = [event for event in house.events("receive") if event["event"] == "association ended"]
    (correlation,) = {event["correlation_id"] for event in received if event["stored"] == len(sent)}
    assessed = [event for event in house.events("work-cpu") if event.get("correlation_id") == correlation]
    assert [event["event"] for event in assessed] == ["assessed", "assessed"]
    # The line follows the commit that the dashboard has shown.
    judged = house.until(
        lambda: [event for event in house.events("sweep") if correlation in event.get("correlation_ids", ())],
        30,
        "judged in the log",
    )
    assert {event["verdict"] for event in judged} == {found["verdict"]}
    trail = {("receive", "store"), ("work", "queue"), ("work", "analyse"), ("sweep", "judge")}
    ours = {(f"sonomark-{role}", step) for role, step in trail}
    house.until(lambda: ours <= {span[:2] for span in collector.spans if span[2] == correlation}, 30, "traced")


def test_the_self_test_works_out_of_the_box(house: Production) -> None:
    steps = house.sonomark("selftest")
    assert all(f"✓ {step}" in steps for step in STEPS), steps


def test_the_metrics_of_every_role_can_be_scraped(house: Production) -> None:
    shared = {family.name for family in text_string_to_metric_families(house.page("http", "/metrics"))}
    assert {"sonomark_in_flight", "sonomark_role_alive", "sonomark_database_up"} <= shared
    alive = house.page("http", "/metrics")
    for role in ("receive", "work", "sweep", "review"):
        assert f'sonomark_role_alive{{role="{role}"}}' in alive
    for role in ("receive", "work-cpu", "sweep"):
        own = {family.name for family in text_string_to_metric_families(house.page(role, "/metrics"))}
        assert "sonomark_disk_free_bytes" in own
        assert "sonomark_in_flight" not in own


def test_logs_are_json_without_patients(house: Production) -> None:
    for role in ("receive", "work-cpu", "sweep", "review"):
        log = house.log(role)
        assert "Canary" not in log
        assert "canary-id" not in log
    assert house.events("receive")
    assert all("role" in event for event in house.events("receive") + house.events("work-cpu"))


def test_a_role_gets_no_secret_of_another(house: Production) -> None:
    for role in ("receive", "work-cpu", "sweep"):
        assert not (house.folder / f"secrets-of-{role}" / "sonomark_secret_key").exists()
        assert not [name for name in house.environment(role) if "PASSWORD" in name or name.endswith("KEY")]


def test_the_broker_obeys_nobody_without_the_password(house: Production) -> None:
    import redis

    port = house.ports["redis"]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port).ping()
    password = (house.folder / "secrets" / "sonomark_broker_password").read_text()
    ours = redis.Redis(port=port, username="sonomark", password=password)
    assert ours.ping()
    for forbidden in ("FLUSHALL", "CONFIG GET *", "SHUTDOWN", "ACL LIST"):
        with pytest.raises(redis.exceptions.NoPermissionError):
            ours.execute_command(*forbidden.split())


def _fell(house: Production, victim: str) -> None:
    """One service, the hard way, and up again as its engine would start it."""
    if victim == "redis flushed":
        house.stop_service("redis", signal.SIGKILL)
        shutil.rmtree(house.folder / "redis")
        house.start_service("redis")
    elif victim == "postgres":
        house.restart("postgres", signal.SIGQUIT)  # an immediate shutdown: recovery from the log at the next start
    else:
        house.restart(victim, signal.SIGKILL)


def nothing_lost_nothing_doubled(house: Production, acknowledged: set[str], before: int) -> None:
    house.settled(before + len(acknowledged), within_s=120)
    engine = create_engine(house.database_url())
    with engine.connect() as connection:
        rows = dict(connection.execute(text("SELECT sop_instance_uid, count(*) FROM instances GROUP BY 1")).all())
        standing = dict(
            connection.execute(
                text(
                    "SELECT i.sop_instance_uid, count(*) FROM verdicts v JOIN instances i ON i.id = v.instance_id"
                    " WHERE v.superseded_at IS NULL GROUP BY 1"
                )
            ).all()
        )
        keys = [key for (key,) in connection.execute(text("SELECT archive_key FROM instances"))]
    engine.dispose()
    assert {uid: rows.get(uid, 0) for uid in acknowledged} == dict.fromkeys(acknowledged, 1)
    assert {uid: standing.get(uid, 0) for uid in acknowledged} == dict.fromkeys(acknowledged, 1)
    assert not [key for key in keys if not (house.archive() / key).is_file()]


def drained_a_second(house: Production, folder: Path, seconds: float = 15.0) -> float:
    """Images a second from the senders' first to the last verdict, with nobody killed."""
    before, began = house.flow()["acknowledged"], time.monotonic()
    with Sender(house, folder, write_sample) as one, Sender(house, folder, write_sample) as other:
        time.sleep(seconds)
    sent = len(one.acknowledged | other.acknowledged)
    house.settled(before + sent, within_s=300)
    return sent / (time.monotonic() - began)


@pytest.mark.timeout(300 + 2 * CHAOS_SECONDS)
def test_any_service_killed_under_load_loses_and_doubles_nothing(house: Production, tmp_path: Path) -> None:
    """Each service once by default; SONOMARK_CHAOS_SECONDS=300 is five minutes of a kill every ten seconds.

    The load of the five minutes is `OFFERED` of what the same house drained just before, so that whatever waits at the
    end waits because of the kills and not because the machine is too small.
    """
    every_s, kills = (10.0, CHAOS_SECONDS // 10) if CHAOS_SECONDS else (2.0, len(VICTIMS))
    write = write_sample if CHAOS_SECONDS else write_image
    carried = drained_a_second(house, tmp_path) if CHAOS_SECONDS else 0.0
    before = house.flow()["acknowledged"]
    with ExitStack() as stack:
        senders = [stack.enter_context(Sender(house, tmp_path, write, OFFERED * carried / 2)) for _ in range(2)]
        began = time.monotonic()
        for number, victim in enumerate(itertools.islice(itertools.cycle(VICTIMS), kills)):
            time.sleep(max(0.0, began + every_s * (number + 1) - time.monotonic()))
            _fell(house, victim)
            name = victim.split()[0]
            house.until(lambda name=name: house.healthy(name), 60, f"{name} healthy again")
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    assert len(acknowledged) > 20, [sender.refused for sender in senders]
    ended = time.monotonic()
    nothing_lost_nothing_doubled(house, acknowledged, before)
    took = time.monotonic() - ended
    print(f"{kills} kills, {len(acknowledged)} acknowledged of {OFFERED:.0%} of {carried:.1f}/s offered", end=", ")
    print(
        f"refused {dict(senders[0].refused + senders[1].refused)}, lost 0, doubled 0, all terminal {took:.1f} s after"
    )


def test_a_rolling_restart_under_load_loses_nothing(house: Production, tmp_path: Path) -> None:
    before = house.flow()["acknowledged"]
    with Sender(house, tmp_path, write_image) as sender:
        for role in ("work-cpu", "sweep", "review", "receive"):
            time.sleep(2)
            house.restart(role, signal.SIGTERM)
            house.until(lambda role=role: house.healthy(role), 90, f"{role} healthy again")
        time.sleep(1)
    assert len(sender.acknowledged) > 20, sender.refused
    assert not sender.refused.keys() - {"PeerError", "None"}, sender.refused  # turned away at the door, never failed
    nothing_lost_nothing_doubled(house, sender.acknowledged, before)
