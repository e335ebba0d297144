"""The worklist: studies in the order in which they need a person, one keyset page at a time.

The order is (rank, time of the last image, id). Pages are cut by the last row's own key and never by an offset, so a
queue that is worked from the top neither skips nor repeats a row.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session, load_only

from service.db import cursors, double_reads, overrides
from service.db.cursors import Key
from service.db.names import parts_begin
from service.db.tables import (
    LACKING,
    Finding,
    FindingState,
    Hold,
    Id,
    Instance,
    Severity,
    Study,
    User,
    Utc,
    Verdict,
    VerdictRecord,
    now,
)
from service.db.tables.studies import DECIDED, FLAGGED, QUIET, UNCERTAIN, WAITING

MINE = -1  # beside the ranks, where studies are counted
TABS: dict[str, tuple[int, ...]] = {
    "flagged": (FLAGGED,),
    "uncertain": (UNCERTAIN,),
    "mine": (FLAGGED, UNCERTAIN, WAITING, QUIET, DECIDED),
    "decided": (DECIDED,),
    "all": (FLAGGED, UNCERTAIN, WAITING, QUIET, DECIDED),
}
_RANKS = {  # that a study of this verdict can have
    Verdict.NON_COMPLIANT: (FLAGGED, DECIDED),
    Verdict.INDETERMINATE: (UNCERTAIN, DECIDED),
    Verdict.COMPLIANT: (QUIET, DECIDED),
    Verdict.NOT_APPLICABLE: (QUIET, DECIDED),
}
QUEUES = ("flagged", "uncertain", "mine")  # worked from the oldest; the other tabs show the newest first
COUNT_TO = 500

Narrowed = TypeVar("Narrowed", Select[Study], Select[int], Select[int, int])


@dataclass(frozen=True)
class Filter:
    """What the worklist is narrowed to. Empty fields narrow nothing."""

    tab: str = "all"
    verdict: Verdict | None = None
    since: datetime | None = None
    until: datetime | None = None
    station: str = ""
    operator: str = ""
    missing: str = ""  # a requirement that is missing or uncertain
    text: str = ""  # beginnings of the name's parts, or the beginning of the patient's id or the accession number
    holder: int | None = None  # "mine": held by this user …
    scanned_by: str = ""  # … or scanned by this operator
    site: str = ""  # of the reader's account, never of the URL
    second_reader: int | None = None  # this user, whose second reads are left out until they are answered

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks among which it can find studies, ascending."""
        tab = TABS[self.tab]
        return tab if self.verdict is None else tuple(rank for rank in tab if rank in _RANKS[self.verdict])

    @property
    def newest_first(self) -> bool:
        return self.tab not in QUEUES

    @property
    def few(self) -> bool:
        """Whether it is found by another index than the worklist's own, and mostly finds little."""
        return bool(self.text or self.missing)

    def digest(self) -> str:
        """A short fingerprint that binds a cursor to its filter."""
        told = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()[:12]


class Lack(NamedTuple):
    """A requirement that is missing or uncertain, as its finding tells."""

    requirement: str
    state: FindingState
    severity: Severity
    sentence: str
    evidence: dict[str, Any]


@dataclass
class Row:
    """A study as the worklist shows it."""

    study: Study
    images: int = 0
    frames: int = 0
    thumbnail: tuple[str, str] | None = None  # SOP Instance UID and SHA-256 of the first image with pixels
    lacking: list[Lack] = field(default_factory=list)
    needs_note: bool = False  # to be overridden
    holder: str = ""


@dataclass
class Page:
    """Rows with the cursors of the pages beside them."""

    rows: list[Row]
    older: str = ""  # cursor of the next page in reading order
    newer: str = ""  # and of the one before


def page(session: Session, wanted: Filter, cursor: str = "", limit: int = 50) -> Page:
    """One page of the worklist; raises Conflict when the cursor belongs to another filter.

    Studies may have left the filter since the cursor was given. Where none is left before it, the first page is the
    page before; where none is left behind it, the page is empty, and leads back.
    """
    backwards, start = cursors.read(wanted.digest(), cursor) if cursor else (False, None)
    studies = _walk(session, wanted, start, limit + 1, backwards=backwards)
    more, studies = len(studies) > limit, studies[:limit]
    if backwards:
        studies.reverse()
    if not studies and start is not None:
        if backwards:
            return page(session, wanted, limit=limit)
        beyond = start._replace(id=start.id + (-1 if wanted.newest_first else 1))  # so that the row itself is before it
        return Page([], newer=cursors.write(wanted.digest(), beyond, backwards=True))
    if not studies:
        return Page([])
    before, after = (more, True) if backwards else (start is not None, more)
    return Page(
        _rows(session, studies),
        older=cursors.write(wanted.digest(), key_of(studies[-1]), backwards=False) if after else "",
        newer=cursors.write(wanted.digest(), key_of(studies[0]), backwards=True) if before else "",
    )


def rows_of(session: Session, ids: Sequence[int], site: str = "", second_reader: int | None = None) -> list[Row]:
    """The rows of these studies, for a worklist that is being updated in place."""
    query = select(Study).where(Study.id.in_(ids), *double_reads.open_to(second_reader))
    if site:
        query = query.where(Study.institution == site)
    return _rows(session, session.scalars(query).all())


def neighbours(session: Session, wanted: Filter, study: Study) -> tuple[str | None, str | None]:
    """Study Instance UIDs of the studies before and after this one in the queue."""
    here = key_of(study)
    before = _walk(session, wanted, here, 1, backwards=True)
    after = _walk(session, wanted, here, 1, backwards=False)
    return (
        before[0].study_instance_uid if before else None,
        after[0].study_instance_uid if after else None,
    )


def position(session: Session, wanted: Filter, study: Study) -> int:
    """How many studies stand before this one in the queue, counted to 500."""
    return len(_walk(session, wanted, key_of(study), COUNT_TO, backwards=True, ids_only=True))


def key_of(study: Study) -> Key:
    """The study's place in the worklist's order."""
    return Key(study.rank, study.last_received_at, study.id)


def count(session: Session, wanted: Filter) -> int:
    """How many studies the filter finds, counted to 501: more than 500 is only said to be more."""
    return tab_counts(session, wanted, (wanted.tab,))[wanted.tab]


def tab_counts(session: Session, wanted: Filter, tabs: Collection[str] = tuple(TABS)) -> dict[str, int]:
    """The count of each tab with the other filters kept, each to 501."""
    by_rank = _counts(session, wanted, ranks=bool(set(tabs) - {"mine"}), mine="mine" in tabs)
    counts = {
        tab: by_rank.get(MINE, 0) if tab == "mine" else sum(by_rank.get(rank, 0) for rank in TABS[tab]) for tab in tabs
    }
    return {tab: min(count, COUNT_TO + 1) for tab, count in counts.items()}


def _counts(session: Session, wanted: Filter, *, ranks: bool, mine: bool) -> dict[int, int]:
    """How many studies of each rank the filter finds, and how many are the reader's own, in one statement.

    Each to 501; of the ranks all where few are found.
    """
    everything = _on_tab(wanted, "all")
    arms: list[Select[int, int]] = []
    if ranks and wanted.few:
        arms.append(_narrow(select(Study.rank, func.count()), everything).group_by(Study.rank))
    elif ranks:
        for rank in everything.ranks:
            some = _narrow(select(Study.id), everything).where(Study.rank == rank).limit(COUNT_TO + 1).subquery()
            arms.append(select(literal_column(str(rank)), func.count()).select_from(some))
    if mine:
        some = _narrow(select(Study.id), _on_tab(wanted, "mine")).limit(COUNT_TO + 1).subquery()
        arms.append(select(literal_column(str(MINE)), func.count()).select_from(some))
    return {key: count for key, count in session.execute(union_all(*arms))}  # noqa: C416


def changed_since(session: Session, moment: datetime) -> list[tuple[int, datetime]]:
    """(id, time) of the studies changed at or after the moment, at most a thousand."""
    found = session.execute(
        select(Study.id, Study.changed_at).where(Study.changed_at >= moment).order_by(Study.changed_at).limit(1000)
    )
    return [(id_, at) for id_, at in found]


def waiting(session: Session, since: datetime | None, limit: int) -> list[Study]:
    """Studies that wait for a person: those changed at or after the moment, newest first; None: the oldest of all."""
    query = select(Study).where(Study.rank.in_((FLAGGED, UNCERTAIN)))
    if since is None:
        query = query.order_by(Study.rank, Study.last_received_at, Study.id)
    else:
        query = query.where(Study.changed_at >= since).order_by(Study.changed_at.desc())
    return list(session.scalars(query.limit(limit)))


def fitting(session: Session, wanted: Filter, ids: Collection[int]) -> list[int]:
    """Those of the studies that the filter finds."""
    return list(session.scalars(_narrow(select(Study.id).where(Study.id.in_(ids)), wanted)))


def _on_tab(wanted: Filter, tab: str) -> Filter:
    return Filter(**{**asdict(wanted), "tab": tab})


def _walk(
    session: Session,
    wanted: Filter,
    start: Key | None,
    limit: int,
    *,
    backwards: bool,
    ids_only: bool = False,
) -> list[Study]:
    """Rows after (or before) ``start``."""
    query = _narrow(select(Study), wanted)
    if ids_only:
        query = query.options(load_only(Study.id))
    if wanted.few:
        return list(session.scalars(_sorted(query, wanted, start, backwards=backwards).limit(limit)))
    found: list[Study] = []
    for rank in sorted(wanted.ranks, reverse=backwards):
        if start is not None and (rank > start.rank if backwards else rank < start.rank):
            continue
        of_rank = query.where(Study.rank == rank)
        if start is not None and rank == start.rank:
            of_rank = of_rank.where(_beyond(wanted, start, backwards=backwards))
        # One rank after the other: each is one tight range of the worklist's index.
        found += session.scalars(of_rank.order_by(*_places(wanted, backwards=backwards)).limit(limit - len(found)))
        if len(found) >= limit:
            break
    return found


def _sorted(query: Select[Study], wanted: Filter, start: Key | None, *, backwards: bool) -> Select[Study]:
    """All ranks at once, for a filter that finds few: they are looked up first and sorted then.

    Nothing indexes ``rank + 0``, which keeps a planner that expects more of them from reading the worklist in its order
    until it has met enough.
    """
    rank = Study.rank + 0
    if start is not None:
        further = Study.rank < start.rank if backwards else Study.rank > start.rank
        query = query.where(or_(further, (Study.rank == start.rank) & _beyond(wanted, start, backwards=backwards)))
    return query.order_by(rank.desc() if backwards else rank, *_places(wanted, backwards=backwards))


def _beyond(wanted: Filter, start: Key, *, backwards: bool) -> ColumnElement[bool]:
    place = tuple_(Study.last_received_at, Study.id)
    edge = tuple_(literal(start.received, Utc), literal(start.id, Id))
    return place < edge if wanted.newest_first != backwards else place > edge


def _places(wanted: Filter, *, backwards: bool) -> tuple[ColumnElement[Any], ...]:
    if wanted.newest_first != backwards:
        return Study.last_received_at.desc(), Study.id.desc()
    return Study.last_received_at.asc(), Study.id.asc()


def _narrow(query: Narrowed, wanted: Filter) -> Narrowed:
    """The filter's conditions without order and page."""
    query = query.where(*double_reads.open_to(wanted.second_reader))
    if wanted.tab not in ("all", "mine"):
        query = query.where(Study.rank.in_(TABS[wanted.tab]))
    if wanted.verdict is not None:
        query = query.where(Study.verdict == wanted.verdict)
    if wanted.since is not None:
        query = query.where(Study.last_received_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Study.last_received_at < wanted.until)
    if wanted.station:
        query = query.where(Study.station == wanted.station)
    if wanted.operator:
        query = query.where(Study.operator == wanted.operator)
    if wanted.site:
        query = query.where(Study.institution == wanted.site)
    if wanted.missing:
        lacking = _lacking(wanted.missing).subquery()  # each study once, so that a join doubles none
        query = query.join(lacking, lacking.c.study_id == Study.id)
    if wanted.tab == "mine":
        held = select(Hold.study_id).where(Hold.user_id == wanted.holder, Hold.expires_at > now())
        scanned = [Study.operator == wanted.scanned_by] if wanted.scanned_by else []
        query = query.where(or_(Study.id.in_(held), *scanned))
    if wanted.text:
        query = query.where(
            or_(
                parts_begin(Study.patient_name, wanted.text),
                Study.patient_id.startswith(wanted.text, autoescape=True),
                Study.accession_number.startswith(wanted.text, autoescape=True),
                Study.study_instance_uid == wanted.text,
            )
        )
    return query


def _lacking(requirement: str) -> Select[int]:
    return (
        select(VerdictRecord.study_id)
        .join(Finding, Finding.verdict_id == VerdictRecord.id)
        .where(
            VerdictRecord.instance_id.is_(None),
            VerdictRecord.superseded_at.is_(None),
            Finding.requirement == requirement,
            text(LACKING),
        )
    )


def _rows(session: Session, studies: Sequence[Study]) -> list[Row]:
    """What each study lacks, consists of and is held by: two statements for all rows, and one for each rule book that
    this process has not met."""
    ids = [study.id for study in studies]
    rows = {study.id: Row(study) for study in studies}
    lacked = [(study_id, label, Lack(*finding)) for study_id, label, *finding in session.execute(_LACKED, {"ids": ids})]
    # Asked once for what a hundred rows say alike: a rule book that is not kept is looked for each time.
    weights = {(label, lack.state, lack.severity) for _, label, lack in lacked}
    needs_note = {weight: overrides.needs_second_reader(session, *weight) for weight in weights}
    for study_id, label, lack in lacked:
        rows[study_id].lacking.append(lack)
        rows[study_id].needs_note |= needs_note[label, lack.state, lack.severity]
    for study_id, total, frames, uid, sha256, holder in session.execute(_PARTS, {"ids": ids, "at": now()}):
        row = rows[study_id]
        row.images, row.frames, row.holder = total, frames, holder or ""
        row.thumbnail = (uid, sha256) if uid else None
    return [rows[study.id] for study in studies]


# Built once: they are the same for every page.
_LACKED = (
    select(
        VerdictRecord.study_id,
        VerdictRecord.rulebook,
        Finding.requirement,
        Finding.state,
        Finding.severity,
        Finding.sentence,
        Finding.evidence,
    )
    .join(Finding, Finding.verdict_id == VerdictRecord.id)
    .where(
        VerdictRecord.study_id.in_(bindparam("ids", expanding=True)),
        VerdictRecord.instance_id.is_(None),
        VerdictRecord.superseded_at.is_(None),
        text(LACKING),
    )
    .order_by(Finding.id)
)
_images = (
    select(
        Study.id,
        func.count(Instance.id).label("total"),
        func.coalesce(func.sum(Instance.number_of_frames), 0).label("frames"),
        func.min(case((Instance.number_of_frames > 0, Instance.id))).label("first"),
    )
    .outerjoin(Instance, Instance.study_id == Study.id)
    .where(Study.id.in_(bindparam("ids", expanding=True)))
    .group_by(Study.id)
    .subquery()
)
_PARTS = (
    select(_images.c.id, _images.c.total, _images.c.frames, Instance.sop_instance_uid, Instance.sha256, User.name)
    .select_from(_images)
    .outerjoin(Instance, Instance.id == _images.c.first)
    .outerjoin(Hold, and_(Hold.study_id == _images.c.id, Hold.expires_at > bindparam("at", type_=Utc)))
    .outerjoin(User, User.id == Hold.user_id)
)
