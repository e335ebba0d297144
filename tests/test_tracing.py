"""Traces at a collector of OTLP over HTTP: the trace's id is the correlation id of the logs."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import pytest

from service import tracing
from service.errors import ConfigurationError
from service.settings import Settings, settings

otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector(HTTPServer):
    """Keeps the spans that are posted to it: (service, name, trace id, milliseconds)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Door)
        self.spans: list[tuple[str, str, str, float]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Door(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        request = otlp.ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            (service,) = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
                self.server.spans.append((service, span.name, span.trace_id.hex(), took))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *_: object) -> None:
        """Its spans are enough."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


STEP = """
import sys
from service import tracing
tracing.configure("work")
tracing.passed("analyse", sys.argv[1], 0.25, attempt=1)
tracing.passed("analyse", "by hand", 0.25)
"""


def test_a_step_is_a_span_under_its_correlation_id(
    collector: Collector, house: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMARK_OTLP_ENDPOINT", collector.url)
    correlation_id = uuid4().hex
    subprocess.run(
        [sys.executable, "-c", STEP, correlation_id], check=True, timeout=60
    )  # sent at its end at the latest
    assert collector.spans == [("sonomark-work", "analyse", correlation_id, 250.0)]


def test_a_collector_that_is_away_holds_nothing_up(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_OTLP_ENDPOINT", "http://127.0.0.1:9")
    ended = subprocess.run([sys.executable, "-c", STEP, uuid4().hex], timeout=60)
    assert ended.returncode == 0


def test_without_an_endpoint_nothing_is_imported(house: Settings) -> None:
    program = "import sys; from service import tracing; tracing.configure('work'); tracing.passed('x', '0' * 32, 1.0)"
    program += "; assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_missing_extra_is_named(house: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOMARK_OTLP_ENDPOINT", "http://127.0.0.1:9")
    settings.cache_clear()
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match="not installed") as refused:
        tracing.configure("work")
    assert "sonomark[otel]" in refused.value.cure
