"""Structured logs: one event a line, with ids and never with patient data."""

import logging
import sys
import warnings
from typing import Any

import structlog

from service.settings import settings


class _StandardError:
    """Standard error as it is when a line is written: loggers are cached for the life of a process, and whoever runs a
    command within it (a test, a notebook) may have lent it a stream that is closed by then."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(role: str) -> None:
    """Send this process's logs to standard error, each line marked with its role."""
    as_json = settings().log_format == "json"
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )

    def name_role(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        # Not a context variable: those do not reach the threads of associations and requests.
        return {"role": role, **event}

    shared: list[structlog.typing.Processor] = [
        name_role,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(settings().log_level),
        logger_factory=structlog.PrintLoggerFactory(_StandardError()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    # They quote values of headers, which are patient data.
    for library in ("pydicom", "pynetdicom"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger; events are short phrases, details are key-value pairs of ids and numbers."""
    return structlog.get_logger(name)  # type: ignore[no-any-return]
