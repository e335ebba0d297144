"""From a complete data set to an instance that outlives a power cut: the one path to 0x0000."""

from contextlib import AbstractContextManager
from threading import Condition, Lock

from service import logs
from service.archive.lanes import LANE_BYTES
from service.archive.store import ArchiveStore, instance_key
from service.db.dates import Dates
from service.db.instances import Arrival, Registration, Settle
from service.db.session import Database
from service.dicom.header import Header
from service.dicom.uid import require_uid as require_uid
from service.errors import DataSetMismatch, NotAllowed, OutcomeUnknown, OutOfSpace
from service.failpoints import fp
from service.jobs import enqueue
from service.receive.bell import Bell
from service.receive.filing import Filing
from service.receive.incoming import Incoming, StoreRequest
from service.receive.ledger import Ledger
from service.receive.peers import SYNTHETIC_AE_TITLE
from service.receive.suspension import Suspension

log = logs.get(__name__)


class Intake:
    """Takes complete data sets in. Safe to call from many threads."""

    def __init__(self, archive: ArchiveStore, database: Database, settle: Settle, reserve_bytes: int) -> None:
        self._archive = archive
        self.suspension = Suspension(archive, database)
        self._filing = Filing(archive, self.suspension.note)
        self._dates = Dates(database)
        self._ledger = Ledger(archive, database, settle, self._filing, self._dates)
        self._bell = Bell()
        self._reserve_bytes = reserve_bytes
        self._under_way = _UnderWay()

    def start(self, journal_bytes: int) -> None:
        """Take the journal into use, after what a crash left in it has been filed."""
        self._filing.start(journal_bytes // LANE_BYTES, self._reserve_bytes)
        self._dates.start()
        self._ledger.rehearse()
        enqueue.prepare()

    def stop(self, timeout: float) -> None:
        """Empty the journal. What time is not enough for the next start files."""
        self._dates.stop()
        self._filing.stop(timeout)

    def take(self, incoming: Incoming) -> Registration:
        """Make the data set durable and queue it; when this returns, Success may be said.

        The order is the promise: bytes on disk, rows written, commit. A crash in between leaves at most a complete
        instance without a row, which nobody was told of and reconciliation registers.

        Raises:
            DataSetMismatch, NotDicom: it cannot be stored as what it claims to be.
            NotAllowed: its sender was let in for another study.
            OutOfSpace, StorageError, DatabaseAway: it could be stored later.
        """
        with self.under_way():
            try:
                self.suspension.require_trust()
                return self._take(incoming)
            except Exception as error:
                self.suspension.note(error)
                raise

    def under_way(self) -> AbstractContextManager[None]:
        """While the block runs an instance is on its way in, and a receiver that stops waits for it."""
        return self._under_way

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait for the instances being taken in right now; False when time ran out."""
        return self._under_way.wait_until_none(timeout)

    def _take(self, incoming: Incoming) -> Registration:
        self._ledger.expect()
        try:
            arrival = self._sealed(incoming)
        except BaseException:
            self._ledger.give_up()
            raise
        try:
            registration = self._ledger.enter(incoming, arrival)
        except OutcomeUnknown:
            # Rows may be there: then the bytes must be. If not, reconciliation registers a file nobody was told of.
            self._ledger.hand_on(incoming)
            self.suspension.unsettled.set()
            raise
        except BaseException:
            incoming.void()
            raise
        if registration.analysis_id is not None:
            self._bell.press(registration.analysis_id)
        return registration

    def _sealed(self, incoming: Incoming) -> Arrival:
        """The instance looked at, written whole and on its way to the disk."""
        incoming.require_whole()
        request = incoming.request
        require_uid(request.sop_instance_uid, "SOP Instance UID of the command")
        header = incoming.header()
        check(header, request)
        if request.only_studies and header.study_instance_uid not in request.only_studies:
            raise NotAllowed(
                "Only the study of the self-test under way may come from here.",
                cure="If its sender shall send other studies too, add it to the peers with its address.",
            )
        if self._archive.free_bytes() < self._reserve_bytes:
            raise OutOfSpace("The archive's disk is above its watermark.")
        fp("receive.before_fsync")
        incoming.seal()
        digest = incoming.sha256
        return Arrival(
            header=header,
            sha256=digest,
            size=incoming.size,
            archive_key=instance_key(digest),
            calling_ae_title=request.calling_ae_title,
            correlation_id=request.correlation_id,
            priority=request.priority,
            synthetic=request.calling_ae_title == SYNTHETIC_AE_TITLE,
        )


class _UnderWay(AbstractContextManager[None]):
    """How many blocks run at this moment, in whichever thread."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = Condition(Lock())

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            if not self._count:
                self._changed.notify_all()

    def wait_until_none(self, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout)


def check(header: Header, request: StoreRequest) -> None:
    """Raise DataSetMismatch unless data set, command and presentation context speak of the same instance."""
    if request.sop_class_uid != request.context_sop_class_uid:
        raise DataSetMismatch("The command's SOP class is not the one of its presentation context.")
    if header.sop_class_uid != request.sop_class_uid:
        raise DataSetMismatch("The data set's SOP class is not the one of the command.")
    if header.sop_instance_uid != request.sop_instance_uid:
        raise DataSetMismatch("The data set's SOP Instance UID is not the one of the command.")
    require_uid(header.study_instance_uid, "Study Instance UID")
    require_uid(header.series_instance_uid, "Series Instance UID")
