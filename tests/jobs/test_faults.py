"""Workers that die, fall asleep or meet poison; messages that are lost or doubled."""

import io
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
import redis
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from sqlalchemy import func, select

from service.archive.store import archive
from service.db.session import database
from service.db.tables import Analysis, AnalysisState, VerdictRecord
from service.jobs import enqueue
from service.jobs.app import QUEUE, app
from tests.faults.tracing import window
from tests.working_house import WorkingHouse

Make = Callable[..., WorkingHouse]
Ultrasound = Callable[..., Path]


def one_standing_verdict_each(count: int) -> bool:
    with database().read() as session:
        standing = select(VerdictRecord.instance_id, func.count()).where(
            VerdictRecord.instance_id.is_not(None), VerdictRecord.superseded_at.is_(None)
        )
        found = dict(session.execute(standing.group_by(VerdictRecord.instance_id)).all())
    return len(found) == count and set(found.values()) == {1}


@pytest.mark.parametrize("point", ["after_claim", "before_infer", "before_verdict_commit"])
def test_what_a_killed_worker_held_is_finished_by_another(make_house: Make, ultrasound: Ultrasound, point: str) -> None:
    house = make_house(LEASE_S="1")
    doomed = house.start("work", SONOMARK_TESTING="1", SONOMARK_FAILPOINTS=f"analyse.{point}=sleep:60000")
    analysis = house.store(ultrasound())
    house.wait([analysis], AnalysisState.CLAIMED)
    house.kill(doomed)
    house.start("sweep")
    house.start("work")
    (done,) = house.wait([analysis])
    assert (done.state, done.attempts) == (AnalysisState.DONE, 2)
    assert one_standing_verdict_each(1)


def test_a_worker_removes_what_a_killed_one_was_writing(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    analysis = house.store(ultrasound())
    unfinished = archive().root / "incoming" / "0123456789abcdef0123456789abcdef" / "1.0.part"
    unfinished.parent.mkdir()
    unfinished.write_bytes(b"half a mask")
    mine = archive().incoming()
    mine.write_bytes(b"under way")
    house.start("work")
    house.wait([analysis])
    assert not unfinished.parent.exists() and mine.exists()


def test_a_verdict_that_was_committed_survives_its_worker(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house(LEASE_S="1")
    house.start("work", SONOMARK_TESTING="1", SONOMARK_FAILPOINTS="analyse.after_verdict_commit=kill")
    analysis = house.store(ultrasound())
    house.wait([analysis])
    enqueue.ring([analysis])
    house.start("sweep")
    house.start("work")
    later = house.store(ultrasound("later"))
    done = house.wait([analysis, later])
    assert [(each.state, each.attempts) for each in done] == [(AnalysisState.DONE, 1)] * 2
    assert one_standing_verdict_each(2)


def test_a_worker_that_slept_past_its_lease_writes_nothing(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house(LEASE_S="0.6")
    sleeper = house.start("work", SONOMARK_TESTING="1", SONOMARK_FAILPOINTS="analyse.before_infer=sleep:3000")
    analysis = house.store(ultrasound())
    house.wait([analysis], AnalysisState.CLAIMED)
    house.stop_between_writes(sleeper)
    house.start("sweep")
    house.start("work")
    (done,) = house.wait([analysis])
    finished = done.finished_at
    house.kill(sleeper, signal.SIGCONT)
    deadline = time.monotonic() + 15
    while "another worker took over" not in house.log() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "another worker took over" in house.log()
    after = house.analysis(analysis)
    assert (after.attempts, after.finished_at) == (2, finished)
    assert one_standing_verdict_each(1)


def test_poison_is_quarantined_after_its_attempts_and_the_line_goes_on(
    make_house: Make, ultrasound: Ultrasound
) -> None:
    house = make_house(DECODE_TIMEOUT_S="1", DECODE_MEMORY_MB="256")
    house.start("work")
    house.start("sweep")
    eater = house.store(ultrasound("eater", **_jpeg(_solid_jpeg(9400), "MONOCHROME2", 1)))
    hanger = house.store(ultrasound("hanger", **_jpeg(_endless_jpeg())))
    damaged = house.store(ultrasound("damaged", PixelData=b"\0" * 64))
    healthy = [house.store(ultrasound(f"healthy{n}")) for n in range(5)]
    poisoned = house.wait([eater, hanger, damaged], timeout=90)
    assert [analysis.state for analysis in house.wait(healthy)] == [AnalysisState.DONE] * 5
    assert [analysis.state for analysis in poisoned] == [AnalysisState.QUARANTINED] * 3
    assert [analysis.attempts for analysis in poisoned] == [3, 3, 1]
    assert "memory" in poisoned[0].reason and "1 s" in poisoned[1].reason and "too short" in poisoned[2].reason
    assert all(analysis.cure for analysis in poisoned)
    assert one_standing_verdict_each(8)


def test_a_disk_that_fails_for_a_moment_is_held_against_no_image(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    worker = house.start("work")
    house.wait([house.store(ultrasound("before"))])
    meets_it = house.store(ultrasound("meanwhile"), ring=False)
    with ExitStack() as failing:
        for decoder in _decoders_of(worker.pid):
            failing.enter_context(window(decoder, "read", "error=EIO", only=[_file_of(meets_it)]))
        house.start("sweep")  # which rings for it, and rings again
        for _ in range(600):
            if "could not be read: Input/output error" in (told := house.analysis(meets_it)).reason:
                break
            time.sleep(0.05)
        assert told.state in (AnalysisState.QUEUED, AnalysisState.CLAIMED), told.reason
    (done,) = house.wait([meets_it])
    assert (done.state, done.attempts, done.reason) == (AnalysisState.DONE, 1, "")
    assert one_standing_verdict_each(2)


def _decoders_of(worker: int) -> list[int]:
    children = psutil.Process(worker).children(recursive=True)
    return [child.pid for child in children if "service.dicom.decoder" in child.cmdline()]


def _file_of(analysis_id: int) -> Path:
    with database().read() as session:
        return archive().path(session.get_one(Analysis, analysis_id).instance.archive_key)


def test_doubled_reversed_and_forged_messages_change_nothing(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    analyses = [house.store(ultrasound(f"n{n}"), ring=False) for n in range(4)]
    enqueue.ring(list(reversed(analyses)) * 3)
    with app().connection_for_write() as connection:
        app().send_task("sonomark.analyse", args=[987654], connection=connection)
        app().send_task("sonomark.analyse", args=["../../etc/passwd"], connection=connection)
        app().send_task("os.system", args=["true"], connection=connection)
        connection.SimpleQueue(QUEUE).put(b"\x80\x04N.", serializer=None, content_type="application/x-python-serialize")
    house.start("work")
    done = house.wait(analyses)
    assert [(analysis.state, analysis.attempts) for analysis in done] == [(AnalysisState.DONE, 1)] * 4
    assert one_standing_verdict_each(4)


def test_lost_messages_are_rung_again(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    analyses = [house.store(ultrasound(f"n{n}"), ring=False) for n in range(3)]
    house.start("work")
    house.start("sweep")
    assert {analysis.attempts for analysis in house.wait(analyses)} == {1}


def test_a_flushed_redis_loses_nothing(make_house: Make, ultrasound: Ultrasound, redis_url: str) -> None:
    house = make_house(BROKER_URL=redis_url)
    house.start("work")
    house.start("sweep")
    first = house.store(ultrasound("first"))
    house.wait([first])
    analyses = [house.store(ultrasound(f"n{n}")) for n in range(6)]
    redis.Redis.from_url(redis_url).flushall()
    assert {analysis.state for analysis in house.wait(analyses)} == {AnalysisState.DONE}
    assert one_standing_verdict_each(7)


def test_an_object_without_pixels_ends_without_failing(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    report = ultrasound("report")
    data = dcmread(report)
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"):
        del data[keyword]
    data.save_as(report)
    house.start("work")
    (done,) = house.wait([house.store(report)])
    assert (done.state, done.attempts, done.reason) == (AnalysisState.DONE, 1, "")


def test_a_worker_told_to_stop_finishes_what_it_began(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    slow = {"SONOMARK_TESTING": "1", "SONOMARK_FAILPOINTS": "analyse.before_infer=sleep:700"}
    worker = house.start("work", SONOMARK_BATCH="4", **slow)
    analyses = [house.store(ultrasound(f"n{n}")) for n in range(16)]
    house.wait(analyses[:1], AnalysisState.CLAIMED)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    states = [house.analysis(analysis).state for analysis in analyses]
    assert states[0] is AnalysisState.DONE and AnalysisState.CLAIMED not in states and AnalysisState.QUEUED in states


def _jpeg(frame: bytes, photometric: str = "YBR_FULL_422", samples: int = 3) -> dict[str, object]:
    with Image.open(io.BytesIO(frame)) as image:
        columns, rows = image.size
    return {
        "Rows": rows,
        "Columns": columns,
        "PhotometricInterpretation": photometric,
        "SamplesPerPixel": samples,
        "PixelData": encapsulate([frame]),
        "transfer_syntax": JPEGBaseline8Bit,
    }


def _solid_jpeg(side: int) -> bytes:
    """Small as a file, a third of a gigabyte on its way to RGB."""
    out = io.BytesIO()
    Image.new("L", (side, side), 40).save(out, "JPEG", quality=10)
    return out.getvalue()


def _endless_jpeg() -> bytes:
    """A progressive JPEG whose last scan comes some thousand times."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG", quality=30, progressive=True)
    data = out.getvalue()
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * (60_000_000 // len(scan)) + b"\xff\xd9"
