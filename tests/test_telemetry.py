"""Each role's own metrics port: three paths, readiness that follows the heartbeat."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import telemetry


@pytest.fixture
def address() -> Iterator[str]:
    server = telemetry.serve("127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


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


def test_readiness_follows_the_heartbeat(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_last_beat", float("-inf"))
    assert _get(f"{address}/readyz")[0] == 503
    assert _get(f"{address}/healthz")[0] == 200
    telemetry.beat()
    assert _get(f"{address}/readyz")[0] == 200


def test_anything_else_is_not_found(address: str) -> None:
    assert _get(f"{address}/../etc/passwd")[0] == 404
