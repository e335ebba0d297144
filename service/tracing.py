"""Traces for those who want them (extra ``otel``): what each role did with an image, along its correlation id.

The correlation id that an association gets is 32 hexadecimal digits, and so is the id of an OpenTelemetry trace: they
are the same. Whoever finds one in a log finds the trace by it. Without OTLP_ENDPOINT nothing is imported or sent.
"""

import atexit
from time import time_ns
from typing import TYPE_CHECKING

from service.errors import ConfigurationError
from service.settings import settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Tracer

_tracer: "Tracer | None" = None


def configure(role: str) -> None:
    """Send this process's spans to OTLP_ENDPOINT, from a thread; a collector that is away loses spans and nothing else.

    Raises ConfigurationError when the extra is not installed.
    """
    global _tracer
    endpoint = settings().otlp_endpoint
    if not endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError(
            "SONOMARK_OTLP_ENDPOINT is set and OpenTelemetry is not installed.",
            cure="pip install 'sonomark[otel]', or unset it.",
        ) from None
    provider = TracerProvider(resource=Resource({"service.name": f"sonomark-{role}"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=5)))
    atexit.register(provider.shutdown)
    _tracer = provider.get_tracer("sonomark")  # type: ignore[assignment]


def passed(
    name: str, correlation_id: str, seconds: float, ended_ago_s: float = 0.0, **attributes: str | int | float
) -> None:
    """A step of an image's way that took so long and ended so long ago. Attributes are never patient data."""
    if _tracer is None or len(correlation_id) != 32:
        return
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    # All roles hang their spans on one parent that nobody sends: the association, named by the same digits.
    trace_id = int(correlation_id, 16)
    parent = SpanContext(trace_id, trace_id & (2**64 - 1) or 1, is_remote=True, trace_flags=TraceFlags(1))
    end = time_ns() - int(ended_ago_s * 1e9)
    span = _tracer.start_span(
        name, set_span_in_context(NonRecordingSpan(parent)), start_time=end - int(seconds * 1e9), attributes=attributes
    )
    span.end(end)
