"""Storage commitment reports on their way: N-EVENT-REPORT until the peer has answered, however long it is away."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import build_role
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from service import logs
from service.archive.store import ArchiveStore
from service.db import commitments
from service.db.session import Database
from service.deliver.association import CallingEntity, associate
from service.dicom.uid import named
from service.errors import DatabaseAway, PeerError, PeerRefused
from service.failpoints import fp
from service.receive.commitment import (
    PUSH_MODEL_INSTANCE,
    Reference,
    examine,
    report,
)
from service.receive.contexts import STORAGE_COMMITMENT as PUSH_MODEL
from service.receive.peers import Register
from service.receive.tls import Tls

log = logs.get(__name__)

LOOK_S = 1.0  # also long enough for the answer to the request to be there before the report
AT_ONCE = 8
HELD_FOR_S = 120.0  # by the process that reports; after that another one takes it for dead
PAUSES_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
GIVE_UP_AFTER = 200  # attempts: a week of hours
ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Due:
    """One report to be made."""

    id: int
    transaction_uid: str
    ae_title: str
    address: str
    references: tuple[Reference, ...]
    attempts: int


class Reporter:
    """Reports from a thread of its own."""

    def __init__(
        self,
        archive: ArchiveStore,
        database: Database,
        peers: Register,
        ae_title: str,
        associations: Callable[[], Iterable[Any]],
        tls: Tls | None = None,
    ) -> None:
        self._tls = tls
        self._archive = archive
        self._database = database
        self._peers = peers
        self._ae_title = ae_title
        self._associations = associations

    def start(self, stop: Event) -> None:
        Thread(target=self._run, args=(stop,), name="reports", daemon=True).start()

    def _run(self, stop: Event) -> None:
        while not stop.wait(LOOK_S):
            try:
                away: dict[tuple[str, str], PeerError] = {}  # found out in this round
                while not stop.is_set() and (due := self._claim()):
                    for each in due:
                        self._report(each, away)
            except DatabaseAway:
                pass
            except Exception as error:  # noqa: BLE001 - nothing may end this thread: no cart would hear of its instances
                log.error("commitments not reported", error=type(error).__name__)

    def _claim(self) -> list[Due]:
        with self._database.begin() as session:
            return [
                Due(
                    row.id,
                    row.transaction_uid,
                    row.ae_title,
                    row.address,
                    tuple(Reference(*pair) for pair in row.requested),
                    row.attempts,
                )
                for row in commitments.claim(session, AT_ONCE, HELD_FOR_S)
            ]

    def _report(self, due: Due, away: dict[tuple[str, str], PeerError]) -> None:
        """One report, if its peer is not away: each try takes half a minute then, and others want to hear theirs."""
        if (known := away.get((due.ae_title, due.address))) is not None:
            self._put_off(due, known.what, known.cure)
            return
        try:
            found = examine(self._archive, self._database, due.references)
            event_type, information = report(due.transaction_uid, self._ae_title, found)
            fp("receive.before_report")
            self._send(due, event_type, information)
        except DatabaseAway:
            raise
        except PeerError as error:
            if not isinstance(error, PeerRefused):
                away[due.ae_title, due.address] = error
            self._put_off(due, error.what, error.cure)
            return
        except Exception as error:  # noqa: BLE001 - one odd request or peer must not end the reports of all others
            self._put_off(due, f"The report failed: {type(error).__name__}.")
            return
        failures = [failure.name.lower() for _, failure in found if failure is not None]
        with self._database.begin() as session:
            commitments.reported(session, due.id, due.attempts, len(found) - len(failures), len(failures))
        log.info(
            "commitment reported",
            transaction=named(due.transaction_uid),
            committed=len(found) - len(failures),
            failed=len(failures),
            reasons=sorted(set(failures)),
        )

    def _put_off(self, due: Due, why: str, cure: str = "") -> None:
        pause = PAUSES_S[min(due.attempts, len(PAUSES_S)) - 1] if due.attempts < GIVE_UP_AFTER else None
        with self._database.begin() as session:
            commitments.put_off(session, due.id, due.attempts, pause, why)
        reason = f"{why} {cure}".rstrip()
        log.warning("commitment not reported", transaction=named(due.transaction_uid), reason=reason, again_in_s=pause)

    def _send(self, due: Due, event_type: int, information: Dataset) -> None:
        peer = self._peers.of(due.ae_title, due.address)
        if peer.reports == "same":
            for association in self._associations():
                if association.asked_for(due.transaction_uid):
                    _require(association.report(event_type, information, ANSWER_S))
                    return
            # It has been released since; what the standard leaves then is an association of our own.
        ae = CallingEntity(self._ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = ANSWER_S
        # The one syntax that every peer has (PS3.5 section 10.1); CTN accepts others for reports and cannot read them.
        ae.add_requested_context(PUSH_MODEL, ImplicitVRLittleEndian)
        tls = self._tls.calling(peer.certificate, due.address) if self._tls and peer.tls == "required" else None
        if tls is None and peer.tls == "required":
            raise PeerError(
                f"{due.ae_title} must use TLS, and the receiver has no certificate of its own.",
                cure="Set SONOMARK_DICOM_CERTIFICATE and SONOMARK_DICOM_PRIVATE_KEY.",
            )
        association = associate(ae, due.address, peer.port, ae_title=due.ae_title, ext_neg=[_as_scp()], tls_args=tls)
        if not association.is_established:
            raise PeerError(
                f"{due.ae_title} takes no association at {due.address}:{peer.port}.",
                cure="Check that the peer runs, and its port: in SONOMARK_PEERS, or on the page Peers.",
            )
        try:
            answer, _ = association.send_n_event_report(information, event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            _require(answer.get("Status"))
        except (ValueError, RuntimeError) as error:
            raise PeerRefused(
                f"{due.ae_title} did not accept storage commitment reports.",
                cure="Let it take them from this AE title, or set `reports` of this peer to `same`.",
            ) from error
        finally:
            association.release()


def _as_scp() -> SCP_SCU_RoleSelectionNegotiation:
    """The one who calls is the provider here (PS3.4 section J.3.3)."""
    return build_role(PUSH_MODEL, scu_role=False, scp_role=True)


def _require(status: int | None) -> None:
    if status is None:
        raise PeerError("The peer did not answer the report.", cure="Look at its own log; the report is repeated.")
    if status != 0x0000:
        raise PeerRefused(
            f"The peer refused the report with 0x{status:04X}.",
            cure="Look the status up in its conformance statement; the report is repeated.",
        )
