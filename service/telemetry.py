"""Prometheus metrics, one table for the whole house. Labels are kinds, states and steps: never patient data.

Each role is its own process, so counters live where the event happens; what is true of the whole house
(queue depth, oldest instance) is read from the database when ``/metrics`` is scraped.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()

STORED = Counter("sonomark_instances_stored", "C-STORE requests by status", ["status"], registry=REGISTRY)
ASSESSED = Counter(
    "sonomark_instances_assessed", "Analyses finished by outcome", ["outcome"], registry=REGISTRY
)
STEP_SECONDS = Histogram(
    "sonomark_step_seconds",
    "Time from one step of an image's way to the next",
    ["step"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "sonomark_http_seconds", "Dashboard requests by route and status", ["route", "status"], registry=REGISTRY
)
IN_FLIGHT = Gauge("sonomark_in_flight", "Acknowledged instances without an end yet", registry=REGISTRY)
QUARANTINED = Gauge("sonomark_quarantined", "Instances held back with a reason", registry=REGISTRY)
OLDEST_IN_FLIGHT = Gauge(
    "sonomark_oldest_in_flight_seconds", "Age of the oldest instance that has no end yet", registry=REGISTRY
)
ROLE_ALIVE = Gauge(
    "sonomark_role_alive", "Processes of a role with a fresh heartbeat", ["role"], registry=REGISTRY
)
LEASES_EXPIRED = Counter("sonomark_leases_expired", "Claims taken from silent workers", registry=REGISTRY)


def exposition() -> bytes:
    """All metrics of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
