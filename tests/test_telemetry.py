"""Each role's own metrics port: three paths, readiness that follows the heartbeat."""

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import telemetry

MISSING: dict[str, str] = {}


@pytest.fixture
def address() -> Iterator[str]:
    server = telemetry.serve("127.0.0.1", 0, lambda: MISSING)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    MISSING.clear()


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_what_this_process_counted(address: str) -> None:
    status, text = _get(f"{address}/metrics")
    names = {family.name for family in text_string_to_metric_families(text)}
    assert status == 200
    assert {"sonomark_leases_expired", "process_resident_memory_bytes", "sonomark_disk_free_bytes"} <= names
    assert "sonomark_in_flight" not in names  # a worker does not know the house and must not say 0


def test_disk_is_asked_at_every_scrape(address: str) -> None:
    left = iter([5e9, 4e9])
    telemetry.watch_disk(lambda: next(left), 1e9)
    try:
        assert "sonomark_disk_free_bytes 5e+09" in _get(f"{address}/metrics")[1]
        assert "sonomark_disk_free_bytes 4e+09" in _get(f"{address}/metrics")[1]
    finally:
        telemetry.watch_disk(lambda: 0.0, 0.0)


def test_readiness_says_what_is_missing(address: str) -> None:
    assert _get(f"{address}/readyz")[0] == 200
    MISSING["database"] = "The database refused: no route to host."
    status, body = _get(f"{address}/readyz")
    assert (status, json.loads(body)["checks"]) == (503, MISSING)
    assert _get(f"{address}/healthz")[0] == 200  # alive, and that is another question


def test_a_fork_in_the_middle_of_scrapes_gets_free_locks(address: str) -> None:
    stop = threading.Event()

    def scrape() -> None:
        # With a breath between two: back to back this thread takes the lock again before a fork that waits wakes up.
        while not stop.wait(0.001):
            telemetry.exposition()

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(10)  # ends the child by a signal where it would wait for ever
                telemetry.STORED.labels("success").inc()
                telemetry.exposition()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        scraper.join()


def test_anything_else_is_not_found(address: str) -> None:
    assert _get(f"{address}/../etc/passwd")[0] == 404
