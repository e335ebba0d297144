"""Prometheus metrics, one table for the whole house. Labels are kinds, states, steps and machines: never patient data.

Each role is its own process and counts what it does itself (`PROCESS`). What is true of the whole house, such as the
length of the queue, is read from the database when the dashboard's ``/metrics`` is scraped (`HOUSE`, set by
`service.db.census`): it is right whichever process asks, and no worker has to be reachable.
"""

import json
import math
import os
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from service.errors import ConfigurationError, SonomarkError

PROCESS = CollectorRegistry()
HOUSE = CollectorRegistry()
ProcessCollector(registry=PROCESS)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# Each process for itself.
STORED = Counter("sonomark_instances_stored", "C-STORE requests by status.", ["status"], registry=PROCESS)
ASSESSED = Counter("sonomark_instances_assessed", "Analyses finished by outcome.", ["outcome"], registry=PROCESS)
HTTP_SECONDS = Histogram(
    "sonomark_http_seconds", "Dashboard requests by route and status.", ["route", "status"], registry=PROCESS
)
LEASES_EXPIRED = Counter("sonomark_leases_expired", "Claims taken from silent workers.", registry=PROCESS)
DISK_FREE = Gauge("sonomark_disk_free_bytes", "Space left on the archive's file system.", registry=PROCESS)
DISK_RESERVE = Gauge("sonomark_disk_reserve_bytes", "Below this, C-STORE answers 0xA700.", registry=PROCESS)
ARCHIVE_OUTBOX = Gauge(
    "sonomark_archive_outbox", "Objects of this machine that the bucket does not have yet.", registry=PROCESS
)
ARCHIVE_OUTBOX_AGE = Gauge(
    "sonomark_archive_outbox_oldest_seconds", "How long the oldest of them has waited.", registry=PROCESS
)
STORAGE_SUSPENDED = Gauge(
    "sonomark_storage_suspended", "1 while nothing is taken in because a disk failed.", registry=PROCESS
)
DATABASE_UP = Gauge("sonomark_database_up", "1 while the dashboard can read the database.", registry=PROCESS)

# The whole house, from the database.
IN_FLIGHT = Gauge("sonomark_in_flight", "Acknowledged instances without an end yet.", registry=HOUSE)
QUEUED = Gauge("sonomark_queued", "Analyses that wait for a worker.", registry=HOUSE)
OLDEST_QUEUED = Gauge("sonomark_oldest_queued_seconds", "Age of the oldest analysis that waits.", registry=HOUSE)
OLDEST_IN_FLIGHT = Gauge(
    "sonomark_oldest_in_flight_seconds", "Age of the oldest instance without an end.", registry=HOUSE
)
OVERDUE_LEASES = Gauge(
    "sonomark_overdue_leases", "Claims whose lease has run out and that nobody took.", registry=HOUSE
)
QUARANTINED = Gauge("sonomark_quarantined", "Instances given up with a reason, until a person decides.", registry=HOUSE)
OLDEST_UNJUDGED = Gauge(
    "sonomark_oldest_unjudged_seconds", "How long the longest settled study waits for its verdict.", registry=HOUSE
)
RECENT_ANALYSES = Gauge(
    "sonomark_recent_analyses", "Analyses that ended within ten minutes, by state.", ["state"], registry=HOUSE
)
RECENT_RETRIES = Gauge(
    "sonomark_recent_retries", "Analyses that ended within ten minutes and took more than one attempt.", registry=HOUSE
)
RECENT_STEP = Gauge(
    "sonomark_recent_step_seconds",
    "Quantiles of each step of an image's way, of the analyses that ended within ten minutes.",
    ["step", "quantile"],
    registry=HOUSE,
)
RECENT_VERDICTS = Gauge(
    "sonomark_recent_verdicts", "Verdicts on studies within the last hour.", ["verdict"], registry=HOUSE
)
MEAN_SCORE = Gauge(
    "sonomark_mean_score",
    "Mean presence score of a kind over a station's frames within the last hour; drift shows here.",
    ["station", "kind"],
    registry=HOUSE,
)
SCORED_FRAMES = Gauge(
    "sonomark_scored_frames", "Frames behind sonomark_mean_score, by station.", ["station"], registry=HOUSE
)
ARCHIVE_ILL = Gauge(
    "sonomark_archive_ill",
    "Archived objects that the last look found damaged or missing.",
    ["condition"],
    registry=HOUSE,
)
ARCHIVE_PASS_AGE = Gauge(
    "sonomark_archive_pass_age_seconds", "Since the newest complete verification of the archive began.", registry=HOUSE
)
ROLE_ALIVE = Gauge("sonomark_role_alive", "Processes of a role with a fresh heartbeat.", ["role"], registry=HOUSE)
PEER_LAST_SEEN = Gauge(
    "sonomark_peer_last_seen_timestamp_seconds", "When a calling AE title last did anything.", ["peer"], registry=HOUSE
)
PEER_REFUSED = Gauge("sonomark_peer_refused", "What a calling AE title was refused, ever.", ["peer"], registry=HOUSE)
CLOCK_SKEW = Gauge("sonomark_clock_skew_seconds", "This machine's clock minus the database's.", registry=HOUSE)

# A process that forks while another thread holds a metric's lock would give its child a lock that nobody opens.
_scraping = Lock()
os.register_at_fork(before=_scraping.acquire, after_in_parent=_scraping.release, after_in_child=_scraping.release)


def exposition() -> bytes:
    """What this process counted, in Prometheus' text format."""
    with _scraping:
        return generate_latest(PROCESS)


def house_exposition() -> bytes:
    """What this process counted and what is true of the whole house."""
    with _scraping:
        return generate_latest(PROCESS) + generate_latest(HOUSE)


def serve(host: str, port: int, missing: Callable[[], dict[str, str]]) -> ThreadingHTTPServer:
    """Answer ``/metrics``, ``/healthz`` and ``/readyz`` for this process from a daemon thread.

    ``missing`` is asked at each ``/readyz``: what this role lacks, by name and in words; nothing when it is ready.
    """

    class Door(_Door):
        lacks = staticmethod(missing)

    try:
        server = ThreadingHTTPServer((host, port), Door)
    except OSError as error:
        raise ConfigurationError(
            f"The port {port} of the metrics cannot be opened on {host}: {error.strerror or error}.",
            cure="Stop what uses it, or correct SONOMARK_METRICS_HOST and SONOMARK_METRICS_PORT.",
        ) from error
    server.daemon_threads = True
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def watch_disk(free_bytes: Callable[[], float], reserve_bytes: float) -> None:
    """Report the space left on the archive's file system, asked for at every scrape; NaN when it does not answer."""

    def ask() -> float:
        try:
            return free_bytes()
        except SonomarkError:
            return math.nan

    DISK_FREE.set_function(ask)
    DISK_RESERVE.set(reserve_bytes)


class _Door(BaseHTTPRequestHandler):
    """A scraper and a health check, nobody else: three paths, no input."""

    timeout = 5  # seconds of silence after which a connection is dropped
    lacks: Callable[[], dict[str, str]]

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/metrics":
            self._answer(200, exposition(), CONTENT_TYPE_LATEST)
        elif path == "/healthz":
            self._answer_json(200, {"status": "alive"})
        elif path == "/readyz":
            missing = self.lacks()
            self._answer_json(503 if missing else 200, {"ready": not missing, "checks": missing})
        else:
            self._answer_json(404, {"status": "not found"})

    def log_message(self, format: str, *_: object) -> None:
        """Scrapes are no events."""

    def _answer_json(self, status: int, body: dict[str, object]) -> None:
        self._answer(status, json.dumps(body).encode(), "application/json")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
