"""The worker as a real Celery process, on both brokers."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.analyse import crew, tasks
from service.db import analyses
from service.db.session import database
from service.db.tables import Analysis, AnalysisState, Frame, Verdict, VerdictRecord
from service.jobs import enqueue
from tests.working_house import WorkingHouse

Make = Callable[..., WorkingHouse]
Ultrasound = Callable[..., Path]


@pytest.fixture(params=["spool", "redis"])
def broker(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("redis_url") if request.param == "redis" else ""


def test_an_instance_becomes_frames_annotations_and_a_verdict(
    make_house: Make, ultrasound: Ultrasound, broker: str
) -> None:
    house = make_house(BROKER_URL=broker)
    house.start("work")
    marked, plain = house.store(ultrasound("marked")), house.store(ultrasound("plain", marked=False))
    done = house.wait([marked, plain])
    assert [analysis.state for analysis in done] == [AnalysisState.DONE] * 2
    with database().read() as session:
        frames = list(session.scalars(select(Frame).order_by(Frame.analysis_id)))
        assert [[mark.kind for mark in frame.annotations] for frame in frames] == [["caliper"], []]
        assert frames[0].scores["caliper"] > 0.9 > 0.1 > frames[1].scores["caliper"]
        standing = session.scalars(select(VerdictRecord).where(VerdictRecord.instance_id.is_not(None))).all()
        assert len(standing) == 2 and all(record.verdict in Verdict for record in standing)
        assert analyses.flow(session) | {"oldest_in_flight_s": 0} == {
            "acknowledged": 2,
            "terminal": 2,
            "in_flight": 0,
            "quarantined": 0,
            "oldest_in_flight_s": 0,
        }
    assert done[0].network.startswith("tiny@") and done[0].milliseconds["restore"] > 0


def test_a_batch_claimed_together_ends_as_each_alone_would(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house(BATCH="5")
    paths = [ultrasound(f"n{n}", marked=n % 2 == 0, frames=1 + n % 3) for n in range(5)]
    paths.insert(2, ultrasound("damaged", PixelData=b"\0" * 64))
    ids = [house.store(path) for path in paths]
    house.start("work")
    ended = house.wait(ids)
    assert [analysis.state.value for analysis in ended] == ["done"] * 2 + ["quarantined"] + ["done"] * 3
    assert {analysis.attempts for analysis in ended} == {1}
    assert len({analysis.claimed_at for analysis in ended}) < len(ids)
    with database().read() as session:
        for analysis, path in zip(ended, paths, strict=True):
            frames = session.scalars(select(Frame).where(Frame.analysis_id == analysis.id)).all()
            found = {mark.kind for frame in frames for mark in frame.annotations}
            assert found == ({"caliper"} if path.stem in ("n0", "n2", "n4") else set())


def test_one_bell_is_enough_for_all_that_wait(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    ids = [house.store(ultrasound(f"n{n}"), ring=n == 3) for n in range(6)]
    house.start("work")  # and no sweeper that would ring again
    assert {analysis.attempts for analysis in house.wait(ids)} == {1}


def test_batches_under_way_at_once_end_as_one_after_the_other_would(make_house: Make, ultrasound: Ultrasound) -> None:
    """Decoded ahead and recorded behind, as on a GPU; one that failed before goes alone."""
    house = make_house(BATCH="3")
    ids = [house.store(ultrasound(f"n{n}", marked=n % 2 == 0), ring=False) for n in range(11)]
    with database().begin() as session:
        session.get_one(Analysis, ids[4]).attempts = 1
    enqueue.ring(ids[:1])
    house.start("work")
    ended = house.wait(ids)
    assert {analysis.state for analysis in ended} == {AnalysisState.DONE}
    assert [analysis.attempts for analysis in ended] == [2 if number == 4 else 1 for number in range(11)]
    together = Counter(analysis.claimed_at for analysis in ended)
    assert together[ended[4].claimed_at] == 1 and max(together.values()) == 3
    with database().read() as session:
        marks = [len(analysis_frames[0].annotations) for analysis_frames in map(_frames_of(session), ids)]
    assert marks == [1 if number % 2 == 0 else 0 for number in range(11)]


def _frames_of(session: Session) -> Callable[[int], list[Frame]]:
    return lambda analysis_id: list(session.scalars(select(Frame).where(Frame.analysis_id == analysis_id)))


def test_workers_that_share_the_cores_compute_on_one_thread_each(make_house: Make) -> None:
    make_house(WORKERS=str(os.cpu_count()))
    tasks._loaded.cache_clear()
    before = cv2.getNumThreads()
    try:
        crew._keep_to_share()
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)
        tasks._loaded.cache_clear()
