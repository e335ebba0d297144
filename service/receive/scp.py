"""The role ``receive``: listens, takes instances in, and drains when told to stop."""

import gc
import logging
import signal
import warnings
from functools import lru_cache
from threading import Event, Thread
from typing import Any, cast

from pynetdicom import AE, _config

from service import failpoints, logs
from service.archive.reconcile import reconcile
from service.archive.store import archive
from service.db import patience
from service.db.heartbeats import keep_beating
from service.db.session import database
from service.db.wal import prepare_log
from service.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from service.errors import ConfigurationError, DatabaseAway, StorageError
from service.receive.association import Acceptor, Door, DoorHandler
from service.receive.contexts import supported
from service.receive.crew import Crew
from service.receive.handlers import Activity, Handlers
from service.receive.intake import Intake
from service.receive.peers import Peers, Register
from service.receive.reports import Reporter
from service.receive.seats import Seats, Tally
from service.receive.tls import Tls
from service.settings import Settings, settings

log = logs.get(__name__)

ASSOCIATION_REQUEST_DEADLINE_S = 10.0
DRAIN_S = 20.0
ANSWER_S = 10.0  # of PostgreSQL: a wait, and one for a new connection, must fit into what a cart waits for a response
WAKE_S = 0.5
ACTIVITY_INTERVAL_S = 2.0
RECONCILE_INTERVAL_S = 24 * 3600.0
SETTLED_S = 10.0  # by then what was on its way has a file


class Receiver:
    """The DICOM door: one listening socket and its associations."""

    def __init__(self, chosen: Settings, place: int = 0) -> None:
        _quieten()
        failpoints.refuse_in_production()
        patience.limit(ANSWER_S)
        self._settings = chosen
        self._peers = Register(Peers.parse(chosen.peers, chosen.peers_file), database())
        tally = Tally(chosen.data_dir / "seats", chosen.receivers)
        self._seats = Seats(chosen.max_associations, chosen.max_associations_per_address, tally, place)
        self._tls = Tls.of(chosen)
        self._activity = Activity()
        self._settle = lru_cache(maxsize=256)(chosen.settle_after)
        self._intake = Intake(archive(), database(), self._settle, chosen.disk_reserve_mb << 20)
        self._stop = Event()
        archive().prepare()
        self._intake.start(chosen.journal_mb << 20)
        _prepare_log()
        self._doors = self._open_all()
        self.port: int = self._doors[0].server_address[1]
        self._reporter = Reporter(archive(), database(), self._peers, chosen.ae_title, self._associations, self._tls)

    def serve(self, stop: Event) -> None:
        """Take associations until ``stop`` is set, then let instances under way finish."""
        self._peers.look()
        for door in self._doors:
            port = door.server_address[1]
            log.info("listening", ae_title=self._settings.ae_title, port=port, tls=_spoken(door.tls))
        threads = [
            *(Thread(target=door.serve_forever, args=(0.2,), name="door", daemon=True) for door in self._doors),
            Thread(target=self._keep_writing_activity, name="activity", daemon=True),
            Thread(target=self._keep_reconciling, name="reconcile", daemon=True),
        ]
        for thread in threads:
            thread.start()
        self._reporter.start(self._stop)
        # What was made by now stays: collections need not look at it again and again.
        gc.collect()
        gc.freeze()
        # The kernel may hand a signal to another thread; the main one sees it only when it wakes.
        while not stop.wait(WAKE_S):
            pass
        self._drain()

    def condition(self) -> dict[str, Any]:
        """What the heartbeat says of this process."""
        ends = {} if self._tls is None else {"certificate_ends": self._tls.ends()}
        door = {"peers": self._peers.of_settings, "tls": _spoken(self._tls)}
        return {"suspended": self._intake.suspension.reason(), **door, **ends}

    def _open_all(self) -> list[Door]:
        """One door, or a second one beside it that speaks TLS."""
        chosen = self._settings
        if self._tls is None or chosen.dicom_tls_port is None:
            return [self._open(chosen.dicom_port, self._tls)]
        return [self._open(chosen.dicom_port, None), self._open(chosen.dicom_tls_port, self._tls)]

    def _open(self, port: int, tls: Tls | None) -> Door:
        ae = AE(ae_title=self._settings.ae_title)
        ae.maximum_pdu_size = self._settings.max_pdu
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.acse_timeout = ASSOCIATION_REQUEST_DEADLINE_S
        ae.network_timeout = self._settings.network_timeout_s
        # pynetdicom counts connections that have said nothing yet; ours counts associations, in Seats.
        ae.maximum_associations = 10_000
        ae.supported_contexts = supported(self._settings.extra_sop_classes)
        handlers = Handlers(self._intake, self._activity, self._peers, self._seats, database(), self._settings.ae_title)
        try:
            server = ae.make_server(
                (self._settings.dicom_host, port),
                evt_handlers=handlers.bindings(),
                server_class=Door,
                request_handler=DoorHandler,
            )
        except OSError as error:
            raise ConfigurationError(
                f"The DICOM port {port} cannot be opened: {error.strerror}.",
                cure="Stop what uses the port, or set SONOMARK_DICOM_PORT to another.",
            ) from error
        ae._servers.append(server)
        door = cast(Door, server)
        door.take, door.note, door.under_way = handlers.take, handlers.note, self._intake.under_way
        door.lean, door.tls, door.seats = self._settings.lean_receiving, tls, self._seats
        return door

    def _associations(self) -> list[Acceptor]:
        return [each for door in self._doors for each in door.active_associations if isinstance(each, Acceptor)]

    def _drain(self) -> None:
        log.info("stopping: no new associations, instances under way are finished")
        self._stop.set()
        for door in self._doors:
            door.shutdown()
        self._intake.wait_until_idle(DRAIN_S)
        for association in self._associations():
            association.abort()
        self._intake.stop(DRAIN_S)
        self._activity.write_down(database())
        log.info("stopped")

    def _keep_writing_activity(self) -> None:
        while not self._stop.wait(ACTIVITY_INTERVAL_S):
            try:
                self._activity.write_down(database())
                database().checkpoint()
            except Exception as error:  # noqa: BLE001 - nothing may end this thread
                log.error("activity not written down", error=type(error).__name__)

    def _keep_reconciling(self) -> None:
        unsettled = self._intake.suspension.unsettled
        while not self._stop.is_set():
            wait = RECONCILE_INTERVAL_S
            unsettled.clear()
            try:
                reconcile(archive(), database(), self._settle)
            except (DatabaseAway, StorageError) as error:
                log.warning("reconciliation put off", reason=str(error))
                wait = 60.0
            except Exception as error:  # noqa: BLE001 - nor this one: files without rows would never be found
                log.error("reconciliation failed", error=type(error).__name__)
                wait = 60.0
            if unsettled.wait(wait):
                self._stop.wait(SETTLED_S)


def serve(place: int = 0) -> None:
    """Run the role until SIGTERM or SIGINT; ``place`` is this process's among several receivers."""
    logs.configure("receive")
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    chosen = settings()
    if chosen.receivers > 1 and chosen.dicom_port == 0:
        raise ConfigurationError("Several receivers need a port to share.", cure="Set SONOMARK_DICOM_PORT.")
    if chosen.receivers > 1 and chosen.database().startswith("sqlite"):
        log.warning("several receivers wait for each other on SQLite", cure="Use PostgreSQL, or SONOMARK_RECEIVERS=1.")
    receiver = Receiver(chosen, place)
    crew = Crew(chosen.receivers if place == 0 else 1)
    crew.start()
    heartbeat = keep_beating(database(), "receive", receiver.condition)
    receiver.serve(stop)
    heartbeat.set()
    crew.stop()


def _prepare_log() -> None:
    """The first instances pay for the log's growth otherwise; without it they are only slower."""
    try:
        prepare_log(database())
    except DatabaseAway as error:
        log.warning("the database's log was not prepared", reason=str(error))


def _spoken(tls: Tls | None) -> str:
    return "none" if tls is None else "mutual" if tls.mutual else "server"


def _quieten() -> None:
    """pynetdicom and pydicom print values of headers, which are patient data, and tracebacks for bad input."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module="pydicom")
