"""What the receiver does at each event of an association: event in, status out."""

import time
from collections import defaultdict
from contextlib import suppress
from threading import Lock
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt

from service import logs, telemetry, tracing
from service.db import commitments
from service.db import peers as peer_rows
from service.db.peers import Tally
from service.db.session import Database
from service.dicom.uid import named
from service.errors import DatabaseAway, SonomarkError
from service.failpoints import fp
from service.receive.commitment import MOST_WAITING, Refusal, Refused, read_request
from service.receive.incoming import Incoming
from service.receive.intake import Intake
from service.receive.peers import Register
from service.receive.seats import Seats
from service.receive.status import Answer, Status, answer
from service.receive.upper_layer import LONGEST_COMMENT

log = logs.get(__name__)

# A-ASSOCIATE-RJ, PS3.8 section 9.3.4: (result, source, reason)
CALLED_AE_TITLE_NOT_RECOGNISED = (1, 1, 7)
CALLING_AE_TITLE_NOT_RECOGNISED = (1, 1, 3)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)

_STORED = {status: telemetry.STORED.labels(status=status.label) for status in Status}


class Handlers:
    """The receiver's event handlers with what they need."""

    def __init__(
        self,
        intake: Intake,
        activity: "Activity",
        peers: Register,
        seats: Seats,
        database: Database,
        ae_title: str,
    ) -> None:
        self._intake = intake
        self._activity = activity
        self._peers = peers
        self._seats = seats
        self._database = database
        self._ae_title = ae_title

    def bindings(self) -> list[evt.EventHandlerType]:
        """Events and their handlers, as pynetdicom takes them."""
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_ESTABLISHED, self.on_established),
            (evt.EVT_CONN_CLOSE, self.on_closed),
            (evt.EVT_ABORTED, self.on_aborted),
            (evt.EVT_C_ECHO, self.on_echo),
            (evt.EVT_C_STORE, self.on_store),
            (evt.EVT_N_ACTION, self.on_action),
        ]

    def on_requested(self, event: Any) -> None:
        """Refuse who may not send, and more associations than the limit."""
        association = event.assoc
        request = association.requestor.primitive
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        address = association.requestor.address_info.address
        try:
            refusal, why = self._refusal(association, calling, called, address)
        except Exception as error:  # noqa: BLE001 - pynetdicom logs what is raised here, and then lets the caller in
            association.log.error("callers cannot be told apart, rejected", error=type(error).__name__)
            self._seats.leave(association.correlation_id)
            refusal, why = LOCAL_LIMIT_EXCEEDED, "the receiver cannot look at its peers"
        if not why:
            return
        association.log.warning("association rejected", calling=calling, address=address, reason=why)
        # Only configured titles get a row of their own: anybody can invent others.
        with suppress(Exception):
            if self._peers.knows(calling):
                self._activity.refused(calling, address, why)
        association.acse.send_reject(*refusal)
        association.is_rejected = True
        association.kill()

    def _refusal(self, association: Any, calling: str, called: str, address: str) -> tuple[tuple[int, int, int], str]:
        """How and why the association is to be rejected; without a reason it has its seat."""
        association.peer = peer = self._peers.of(calling, address)
        if not self._peers.open_to_all and called != self._ae_title:
            return CALLED_AE_TITLE_NOT_RECOGNISED, "called AE title not recognised"
        if not self._peers.allows(calling, address) and not self._comes_to_test(association, calling):
            return CALLING_AE_TITLE_NOT_RECOGNISED, "calling AE title or its address not recognised"
        if self._peers.draining:
            return LOCAL_LIMIT_EXCEEDED, "draining for maintenance"
        if peer.tls == "required" and not association.encrypted:
            return CALLING_AE_TITLE_NOT_RECOGNISED, "this peer must use TLS"
        if peer.certificate and peer.certificate.lower() not in association.names:
            return CALLING_AE_TITLE_NOT_RECOGNISED, "its certificate bears another name"
        return LOCAL_LIMIT_EXCEEDED, self._seats.take(association.correlation_id, peer, address)

    def _comes_to_test(self, association: Any, calling: str) -> bool:
        """Let the house's own self-test in from whichever machine of the house it runs on, with its study alone."""
        association.only_studies = self._peers.self_tests(calling)
        return bool(association.only_studies)

    def on_established(self, event: Any) -> None:
        association = event.assoc
        association.log.info(
            "association established",
            calling=association.requestor.ae_title.strip(),
            address=association.requestor.address_info.address,
            contexts=len(association.accepted_contexts),
            refused_contexts=len(association.rejected_contexts),
        )

    def on_closed(self, event: Any) -> None:
        association = event.assoc
        self._seats.leave(association.correlation_id)
        if association.stored or association.refused:
            association.log.info(
                "association ended",
                stored=association.stored,
                refused=association.refused,
                octets=association.octets,
            )

    def on_aborted(self, event: Any) -> None:
        event.assoc.log.warning("association aborted")

    def on_echo(self, event: Any) -> int:
        """C-ECHO: alive."""
        return Status.SUCCESS

    def on_store(self, event: Any) -> Dataset:
        """C-STORE by pynetdicom's own path."""
        request = event.request
        # One without a data set is refused as any other that has none in it, and by name.
        incoming = event.assoc.dimse.arrived(request.MessageID) or event.assoc.incoming(
            event.context.context_id, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        )
        told = self.take(event.assoc, incoming)
        response = Dataset()
        response.Status = int(told.status)
        if told.comment:
            response.ErrorComment = told.comment[:LONGEST_COMMENT]
        self.note(event.assoc, incoming, told)
        return response

    def take(self, association: Any, incoming: Incoming) -> Answer:
        """Success only once the instance is durable; otherwise the status that names the failure, and why."""
        began = time.perf_counter()
        try:
            made = self._intake.take(incoming)
            told = Answer(Status.SUCCESS, "", made.created, made.conflict, None, time.perf_counter() - began)
        except Exception as error:  # noqa: BLE001 - whatever broke, the sender must hear a status it can act on
            comment = error.what if isinstance(error, SonomarkError) else "The receiver failed; send again later."
            told = Answer(answer(error), comment, error=error, seconds=time.perf_counter() - began)
        finally:
            incoming.discard()
        fp("receive.before_ack")
        return told

    def note(self, association: Any, incoming: Incoming, told: Answer) -> None:
        """Count and log what the sender has been told: it makes its next instance ready meanwhile."""
        calling, address = association.requestor.ae_title.strip(), association.requestor.address_info.address
        if told.error is None:
            self._activity.stored(calling, address)
            association.stored += 1
            association.octets += incoming.size
            # At hundreds a second a line for each would cost more than receiving; the row keeps the correlation id.
            association.log.debug(
                "stored" if told.created else "stored before",
                sop_instance_uid=incoming.request.sop_instance_uid,
                octets=incoming.size,
                conflict=told.conflict,
                milliseconds=round(told.seconds * 1000, 1),
            )
        else:
            association.refused += 1
            self._activity.refused(calling, address, told.comment)
            instance = named(incoming.request.sop_instance_uid)
            if isinstance(told.error, SonomarkError):
                association.log.warning(
                    "refused", sop_instance_uid=instance, status=f"0x{told.status:04X}", reason=str(told.error)
                )
            else:
                association.log.error(
                    "store failed", sop_instance_uid=instance, error=type(told.error).__name__, exc_info=told.error
                )
        _STORED[told.status].inc()
        tracing.passed("store", association.correlation_id, told.seconds, status=told.status.label)

    def on_action(self, event: Any) -> tuple[int, None]:
        """N-ACTION: a request for storage commitment, taken on once it is committed."""
        association = event.assoc
        calling, address = association.requestor.ae_title.strip(), association.requestor.address_info.address
        try:
            instance_uid = str(event.request.RequestedSOPInstanceUID)
            transaction, references = read_request(event.action_type, instance_uid, event.action_information)
            with self._database.begin() as session:
                if commitments.waiting(session, calling) >= MOST_WAITING:
                    raise Refused(Refusal.RESOURCE_LIMITATION)
                pairs = [(reference.sop_class_uid, reference.sop_instance_uid) for reference in references]
                commitments.add(session, transaction, calling, address, pairs)
        except Refused as refused:
            status = refused.status
        except DatabaseAway:
            status = Refusal.PROCESSING_FAILURE
        except Exception as error:  # noqa: BLE001 - pydicom's reader meets whatever the peer wrote
            association.log.warning("commitment request not understood", error=type(error).__name__)
            status = Refusal.INVALID_ARGUMENT
        else:
            association.transactions.add(transaction)
            association.log.info("commitment requested", transaction=named(transaction), instances=len(references))
            return Status.SUCCESS, None
        association.log.warning("commitment refused", status=f"0x{status:04X}", reason=status.name.lower())
        return status, None


class Activity:
    """Counts what each peer does and writes it down now and then: one row per peer, not one write per instance."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tallies: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)

    def stored(self, ae_title: str, address: str) -> None:
        with self._lock:
            self._tallies[ae_title, address].stored += 1

    def refused(self, ae_title: str, address: str, reason: str) -> None:
        with self._lock:
            tally = self._tallies[ae_title, address]
            tally.refused += 1
            tally.last_refusal = reason

    def write_down(self, database: Database) -> None:
        """Move the counts into the database; they are kept for the next time when it is away."""
        with self._lock:
            tallies, self._tallies = self._tallies, defaultdict(Tally)
        if not tallies:
            return
        try:
            with database.begin() as session:
                for (ae_title, address), tally in sorted(tallies.items()):
                    peer_rows.note(session, ae_title, address, tally)
        except DatabaseAway:
            with self._lock:
                for key, tally in tallies.items():
                    newer = self._tallies[key]
                    newer.stored += tally.stored
                    newer.refused += tally.refused
                    newer.last_refusal = newer.last_refusal or tally.last_refusal
