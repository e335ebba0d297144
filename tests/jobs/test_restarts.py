"""Parts that die while others work, and come back."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from service.db.tables import AnalysisState
from service.jobs import enqueue
from tests.working_house import WorkingHouse

Make = Callable[..., WorkingHouse]
Ultrasound = Callable[..., Path]

pytestmark = pytest.mark.acceptance


class Redis:
    """A real server that keeps nothing."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen([*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL)
        client = redis.Redis.from_url(self.url)
        for _ in range(100):
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.05)
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    server = Redis(tmp_path)
    yield server
    server.kill()


def test_a_redis_that_died_and_came_back_empty_loses_nothing(
    make_house: Make, ultrasound: Ultrasound, server: Redis
) -> None:
    house = make_house(BROKER_URL=server.url)
    house.start("work")
    house.start("sweep")
    house.wait([house.store(ultrasound("before"))])
    queued = [house.store(ultrasound(f"queued{n}")) for n in range(5)]
    server.kill()
    stored_while_away = [house.store(ultrasound(f"away{n}")) for n in range(3)]
    server.start()
    enqueue._silent_until = 0.0
    after = [house.store(ultrasound(f"after{n}")) for n in range(3)]
    ended = house.wait([*queued, *stored_while_away, *after], timeout=90)
    assert {analysis.state for analysis in ended} == {AnalysisState.DONE}


def test_a_worker_process_that_dies_is_replaced(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house(LEASE_S="1", WORKERS="2")
    crew = house.start("work")
    house.start("sweep")
    for name in ("first", "second"):
        house.wait([house.store(ultrasound(name))])
        children = psutil.Process(crew.pid).children()
        assert len(children) == 2
        for child in children:
            child.send_signal(signal.SIGKILL)
    queued = [house.store(ultrasound(f"n{n}")) for n in range(4)]
    assert {analysis.state for analysis in house.wait(queued, timeout=90)} == {AnalysisState.DONE}


def test_a_spool_that_is_deleted_under_the_worker_comes_back(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house()
    house.start("work")
    house.start("sweep")
    house.wait([house.store(ultrasound("before"))])
    for round_number in range(3):
        queued = [house.store(ultrasound(f"{round_number}-{n}")) for n in range(3)]
        shutil.rmtree(Path(house.environment["SONOMARK_DATA_DIR"]) / "spool")
        house.wait(queued)


def test_workers_killed_over_and_over_lose_nothing_and_double_nothing(make_house: Make, ultrasound: Ultrasound) -> None:
    house = make_house(LEASE_S="1", WORKERS="2", MAX_ATTEMPTS="10")
    house.start("sweep")
    queued = [house.store(ultrasound(f"n{n}", frames=4)) for n in range(60)]
    for _ in range(4):
        worker = house.start("work")
        time.sleep(4)
        house.kill(worker)
        worker.wait()
    house.start("work")
    ended = house.wait(queued, timeout=120)
    assert {analysis.state for analysis in ended} == {AnalysisState.DONE}
