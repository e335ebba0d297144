"""Old studies from a PACS: listed day by day, fetched at a set rate and time of day, and only what is not here.

What C-GET brings takes the receiver's own intake; what C-MOVE brings comes in by the receiver itself. Progress is in
the database: a run that is cut off, or finds the PACS away, is simply started again.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as clock
from typing import Any, Literal
from uuid import uuid4

from service import logs
from service.archive.store import archive
from service.db import backfills, days
from service.db.session import Database
from service.db.tables import BackfillState
from service.deliver import query
from service.deliver.send import Node
from service.errors import ConfigurationError, PeerError, PeerRefused
from service.receive.incoming import Berth, Incoming, StoreRequest
from service.receive.intake import Intake
from service.receive.status import Status, answer
from service.settings import Settings

log = logs.get(__name__)

AT_ONCE = 10  # instances a request; the rate is kept between requests
ARRIVAL_S = 10.0  # for what a C-MOVE sent to be in the database
DRAIN_S = 120.0  # for the last objects to reach the bucket, before this process ends
SLICE = 1 << 20


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of the hospital's day in which the PACS may be asked. ``20:00-06:00`` goes over midnight."""

    opens: clock
    closes: clock

    @classmethod
    def parse(cls, text: str) -> "Window | None":
        """None for an empty text; raises ConfigurationError for one that is no window."""
        if not text:
            return None
        try:
            opens, closes = (clock.fromisoformat(part.strip()) for part in text.split("-"))
        except ValueError as error:
            raise ConfigurationError(f"'{text}' is no time of day.", cure="Write it as 20:00-06:00.") from error
        if opens.tzinfo is not None or closes.tzinfo is not None:
            raise ConfigurationError(f"'{text}' names a time zone.", cure="Write the hospital's hours: 20:00-06:00.")
        if opens == closes:
            raise ConfigurationError(f"'{text}' never opens.", cure="Leave the window out to ask at any hour.")
        return cls(opens, closes)

    def is_open(self, at: clock) -> bool:
        if self.opens <= self.closes:
            return self.opens <= at < self.closes
        return at >= self.opens or at < self.closes


class Pace:
    """So many instances a second on the average of a request, and only within the window."""

    def __init__(self, per_s: float, window: Window | None) -> None:
        self._per_s = per_s
        self._window = window
        self._next = 0.0

    def wait(self, instances: int) -> None:
        """Return when so many may be asked for."""
        while self._window is not None and not self._window.is_open(datetime.now(days.zone()).time()):
            time.sleep(1.0)
        pause = self._next - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        self._next = time.monotonic() + instances / self._per_s


@dataclass(slots=True)
class Run:
    """What one run did."""

    studies: int = 0
    listed: int = 0  # instances that the PACS has of them
    fetched: int = 0
    failed: int = 0  # studies
    finished: bool = False


@dataclass
class Wanted:
    """What is to be fetched, and how."""

    node: Node
    first_day: date
    last_day: date
    modality: str = "US"
    method: Literal["get", "move"] = "get"
    pace: Pace = field(default_factory=lambda: Pace(20.0, None))


class Backfiller:
    """Runs one backfill."""

    def __init__(self, db: Database, chosen: Settings, wanted: Wanted) -> None:
        self._db = db
        self._wanted = wanted
        self._calling = chosen.ae_title
        self._correlation_id = uuid4().hex
        archive().prepare()
        self._intake = Intake(archive(), db, chosen.settle_after, chosen.disk_reserve_mb << 20)
        self._berth = Berth(archive())

    def run(
        self, on_listed: Callable[[int], None] = lambda _: None, on_study: Callable[[], None] = lambda: None
    ) -> Run:
        """List, then fetch. ``on_listed`` is told how many studies there are to do, ``on_study`` of each one's end.

        Raises:
            PeerError: the PACS does not answer; what was done stays done.
        """
        wanted, found = self._wanted, Run()
        with self._db.begin() as session:
            modality = wanted.modality
            under_way = backfills.begin(session, str(wanted.node), wanted.first_day, wanted.last_day, modality)
            listed_to = under_way.listed_to
        for day in _days(listed_to + timedelta(days=1) if listed_to else wanted.first_day, wanted.last_day):
            self._list(under_way.id, day)
        with self._db.read() as session:
            waiting = backfills.unfinished(session, under_way.id)
        on_listed(len(waiting))
        for study in waiting:
            self._study(under_way.id, study, found)
            on_study()
        with self._db.begin() as session:
            found.finished = backfills.finish(session, under_way.id)
        self._berth.leave()
        if not archive().drain(DRAIN_S):
            log.warning(
                "objects still wait for the bucket on this machine", cure="The next role started here sends them."
            )
        return found

    def _list(self, backfill_id: int, day: date) -> None:
        with query.associated(self._wanted.node, self._calling, query.find_context()) as association:
            uids = query.studies_of(association, day, self._wanted.modality)
        with self._db.begin() as session:
            # Studies of today still come: the next run lists it again.
            backfills.note_day(session, backfill_id, day, uids, is_over=day < datetime.now(days.zone()).date())
        log.info("listed", day=str(day), studies=len(uids))

    def _study(self, backfill_id: int, study: str, found: Run) -> None:
        wanted, listed, unlisted = self._wanted, [], ""
        with query.associated(wanted.node, self._calling, query.find_context()) as association:
            try:
                listed = query.instances_of(association, study, wanted.modality)
            except PeerRefused as error:  # of this study; those behind it must not wait for ever
                unlisted = error.what
        missing = self._missing(listed)
        before, reason = len(missing), unlisted
        try:
            for series, batch in _batches(missing):
                wanted.pace.wait(len(batch))
                self._fetch(study, series, batch)
        except PeerError as error:
            reason = error.what
        missing = self._missing(missing, patience_s=ARRIVAL_S if wanted.method == "move" and not reason else 0.0)
        if missing and not reason:
            reason = f"{len(missing)} of {len(listed)} instances did not come."
        state = BackfillState.FAILED if missing or unlisted else BackfillState.DONE
        fetched = before - len(missing)
        with self._db.begin() as session:
            backfills.note_study(session, backfill_id, study, state, len(listed), fetched, reason)
        found.studies += 1
        found.listed += len(listed)
        found.fetched += fetched
        found.failed += state is BackfillState.FAILED
        log.info("study fetched", study_instance_uid=study, listed=len(listed), fetched=fetched, missing=len(missing))

    def _fetch(self, study: str, series: str, batch: list[tuple[str, str, str]]) -> None:
        wanted, uids = self._wanted, [uid for _, uid, _ in batch]
        if wanted.method == "move":
            with query.associated(wanted.node, self._calling, query.move_context()) as association:
                query.move(association, self._calling, study, series, uids)
            return
        contexts = query.get_contexts(sop_class for _, _, sop_class in batch)
        with query.associated(wanted.node, self._calling, contexts, self._store) as association:
            query.get(association, study, series, uids)

    def _store(self, event: Any) -> int:
        """A C-STORE within C-GET: the same intake, the same truth in the answer."""
        request = event.request
        sop_class, uid = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        syntax = str(event.context.transfer_syntax)
        incoming = Incoming(
            self._berth,
            StoreRequest(
                sop_class, uid, sop_class, syntax, self._wanted.node.ae_title, self._correlation_id, priority=1
            ),
        )
        try:
            with request.DataSet.getbuffer() as data:
                for start in range(0, len(data), SLICE):
                    incoming.write(bytes(data[start : start + SLICE]))
            self._intake.take(incoming)
        except Exception as error:  # noqa: BLE001 - whatever broke, the PACS must hear a status
            status = answer(error)
            log.warning("refused", sop_instance_uid=uid, status=f"0x{status:04X}", reason=type(error).__name__)
            return int(status)
        finally:
            incoming.discard()
        return int(Status.SUCCESS)

    def _missing(self, listed: list[tuple[str, str, str]], patience_s: float = 0.0) -> list[tuple[str, str, str]]:
        """Those of the instances that are not here; waits as long as some still come in."""
        deadline = time.monotonic() + patience_s
        while True:
            here: set[str] = set()
            for start in range(0, len(listed), 500):
                with self._db.read() as session:
                    here |= backfills.stored_of(session, [uid for _, uid, _ in listed[start : start + 500]])
            missing = [each for each in listed if each[1] not in here]
            if not missing or time.monotonic() >= deadline:
                return missing
            time.sleep(0.2)


def _days(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += timedelta(days=1)


def _batches(missing: list[tuple[str, str, str]]) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Of one series each, ten at most."""
    by_series: dict[str, list[tuple[str, str, str]]] = {}
    for each in missing:
        by_series.setdefault(each[0], []).append(each)
    for series, members in by_series.items():
        for start in range(0, len(members), AT_ONCE):
            yield series, members[start : start + AT_ONCE]
