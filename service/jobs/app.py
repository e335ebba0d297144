"""The Celery application. Messages are doorbells: JSON, one analysis id each, nothing else is accepted."""

from functools import lru_cache
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from service.jobs import spool
from service.settings import settings

ANALYSE = "sonomark.analyse"
QUEUE = "analyses"


def app() -> Celery:
    """This process's Celery application, for the broker in force."""
    return _app(settings().broker())


@lru_cache
def _app(broker: str) -> Celery:
    celery = Celery("sonomark", broker=broker, set_as_current=True)
    celery.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # The row is the truth: a message may come late, twice or never.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_default_queue=QUEUE,
        task_queues=[Queue(QUEUE, Exchange(QUEUE), routing_key=QUEUE)],  # type: ignore[no-untyped-call]
        task_create_missing_queues=False,
        # Nobody commands a worker through the broker.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(broker),
    )
    return celery


def _transport_options(broker: str) -> dict[str, Any]:
    if broker.startswith("spool:"):
        return {"folder": spool.folder(broker)}
    return {
        # A C-STORE never waits longer than this for a broker that does not answer.
        "max_retries": 0,
        "interval_start": 0,
        "interval_step": 0,
        "connect_retries_timeout": 0.1,
        "socket_connect_timeout": 1.0,
        "socket_timeout": 5.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
        # A prefetched message that outlives its worker; a second ring finds nothing to claim, so early is harmless.
        "visibility_timeout": 600,
        "unacked_restore_limit": 100,
    }
