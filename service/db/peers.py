"""DICOM peers: which an administrator let in, and what each calling AE title did last."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import quantiles
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db import heartbeats, switches
from service.db.tables import Instance, Peer, PeerActivity, Switch, now
from service.errors import Conflict, NotFound

TODAY = timedelta(hours=24)
GAPS_OF = timedelta(days=14)
FEWEST_GAPS = 20  # below this many a station has no usual gap yet
SHORTEST_QUIET = timedelta(hours=1)  # nobody needs to hear of a coffee break
MOST_RECENT = 5_000
OPTIONS = {  # of a peer, and what they usually are
    "reports": "new",
    "tls": "optional",
    "certificate": "",
    "character_set": "",
    "priority": 0,
    "max_associations": 0,
}


@dataclass(slots=True)
class Tally:
    """What one peer did since it was last written down."""

    stored: int = 0
    refused: int = 0
    last_refusal: str = ""


@dataclass(slots=True)
class Station:
    """A calling AE title as the dashboard shows it."""

    ae_title: str
    entries: list[Peer] = field(default_factory=list)  # what an administrator entered, those in force first
    activity: list[PeerActivity] = field(default_factory=list)
    today: int = 0
    usual_gap: timedelta | None = None  # the longest that 99 of 100 pauses last

    @property
    def last_seen_at(self) -> datetime | None:
        return max((each.last_seen_at for each in self.activity), default=None)

    @property
    def stored(self) -> int:
        return sum(each.stored for each in self.activity)

    @property
    def refused(self) -> int:
        return sum(each.refused for each in self.activity)

    @property
    def error_rate(self) -> float | None:
        """Share of its instances and associations that were refused; None when it sent nothing."""
        return self.refused / (self.stored + self.refused) if self.stored + self.refused else None

    @property
    def last_refusal(self) -> str:
        refusals = [each for each in self.activity if each.last_refusal]
        last = max(refusals, key=lambda each: each.last_seen_at, default=None)
        return f"{last.last_refusal}, from {last.address}" if last is not None else ""

    def quiet_for(self, at: datetime) -> timedelta | None:
        """How long it has been silent, if that is longer than it usually is."""
        seen = self.last_seen_at
        if seen is None or self.usual_gap is None or at - seen <= max(self.usual_gap * 2, SHORTEST_QUIET):
            return None
        return at - seen


@dataclass(frozen=True, slots=True)
class Door:
    """Whom the receiver lets in: the peers of its settings and those that were entered here."""

    of_settings: tuple[str, ...]
    let_in: int  # entered, and not disabled
    disabled: int
    opened: Switch | None  # by an administrator, after the last of them had been disabled
    receivers: int  # alive; where none is, `of_settings` is what the asking process was told
    tls: frozenset[str] = frozenset()  # what they speak, each: none, server or mutual; older ones do not say

    @property
    def lists(self) -> bool:
        """Does it let in listed peers alone?"""
        return bool(self.of_settings or self.let_in)

    @property
    def open_to_all(self) -> bool:
        return not self.lists and (not self.disabled or self.opened is not None)

    @property
    def closed(self) -> bool:
        """Does it let nobody in? Disabling the last peer must not open it to everybody."""
        return not self.lists and not self.open_to_all

    @property
    def knows_no_tls(self) -> bool:
        """Does it turn away who must use TLS, whatever they do?"""
        return self.tls == {"none"}

    @property
    def asks_for_no_certificates(self) -> bool:
        """Does it turn away whose certificate must bear a name?"""
        return bool(self.tls) and "mutual" not in self.tls

    def settings_list(self, ae_title: str) -> bool:
        """Do the settings let this title in too? What they say of a caller goes before what is entered."""
        return any(each.partition("@")[0] == ae_title for each in self.of_settings)


def door(session: Session, settings: str) -> Door:
    """The door as the receivers themselves describe it; ``settings``: the peers to assume where none is alive."""
    receivers = heartbeats.details(session, "receive")
    told = [each.detail["peers"] for each in receivers if "peers" in each.detail]
    listed = {peer for peers in told for peer in peers} if told else {each.strip() for each in settings.split(",")}
    counted = select(func.count()).select_from(Peer)
    disabled = session.scalar(counted.where(Peer.disabled_at.is_not(None))) or 0
    return Door(
        of_settings=tuple(sorted(listed - {""})),
        let_in=(session.scalar(counted) or 0) - disabled,
        disabled=disabled,
        opened=switches.standing(session).get(switches.OPEN),
        receivers=len(receivers),
        tls=frozenset(each.detail["tls"] for each in receivers if "tls" in each.detail),
    )


def note(session: Session, ae_title: str, address: str, tally: Tally) -> None:
    """Add a tally to the peer's row."""
    row = session.get(PeerActivity, (ae_title, address), with_for_update=True)
    if row is None:
        row = PeerActivity(ae_title=ae_title, address=address, stored=0, refused=0)
        session.add(row)
    row.last_seen_at = now()
    row.stored += tally.stored
    row.refused += tally.refused
    if tally.last_refusal:
        row.last_refusal = tally.last_refusal


def peers(session: Session) -> list[PeerActivity]:
    """Every peer ever seen, the one that was quiet longest first."""
    return list(session.scalars(select(PeerActivity).order_by(PeerActivity.last_seen_at)))


def let_in(session: Session) -> list[Peer]:
    """The peers that an administrator entered and did not disable: the receiver reads them every few seconds."""
    return list(session.scalars(select(Peer).where(Peer.disabled_at.is_(None)).order_by(Peer.ae_title)))


def closes(session: Session) -> bool:
    """Whether nobody may send where neither settings nor `let_in` list anybody: a peer was entered once, and no
    administrator has opened the door since."""
    return session.scalar(select(Peer.id).limit(1)) is not None and not switches.is_on(session, switches.OPEN)


def get(session: Session, number: int) -> Peer:
    found = session.get(Peer, number)
    if found is None:
        raise NotFound("There is no such peer.")
    return found


def add(
    session: Session, ae_title: str, address: str, port: int | None, description: str, by: str, **options: Any
) -> Peer:
    """A new peer; ``options`` are columns by name. Raises Conflict when it is there already."""
    _require_alone(session, ae_title, address)
    peer = Peer(ae_title=ae_title, address=address, port=port, description=description, created_by=by, **options)
    session.add(peer)
    session.flush()
    return peer


def change(session: Session, peer: Peer, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Give its columns these values; before and after of those that differ. Raises Conflict when that one is there."""
    differing = {name: [getattr(peer, name), value] for name, value in values.items() if getattr(peer, name) != value}
    if "address" in differing:
        _require_alone(session, peer.ae_title, values["address"])
    for name, (_, value) in differing.items():
        setattr(peer, name, value)
    return differing


def version(peer: Peer) -> str:
    """What is entered of it, as one word: a form that was made before a change has another."""
    entered = [peer.address, peer.port, peer.description, *(getattr(peer, name) for name in OPTIONS)]
    return hashlib.sha256(json.dumps(entered).encode()).hexdigest()[:16]


def unusual(peer: Peer) -> dict[str, Any]:
    """The options in which it differs from a peer of which none was entered."""
    return {name: getattr(peer, name) for name, usual in OPTIONS.items() if getattr(peer, name) != usual}


def _require_alone(session: Session, ae_title: str, address: str) -> None:
    if session.scalar(select(Peer.id).where(Peer.ae_title == ae_title, Peer.address == address)) is not None:
        raise Conflict(f"{ae_title} at {address or 'any address'} is there already.", cure="Change or enable that one.")


def senders(session: Session, since: datetime) -> list[PeerActivity]:
    """Who has stored something and called since then, of those that no entry lets in by title and exact address."""
    called = select(PeerActivity).where(PeerActivity.last_seen_at > since, PeerActivity.stored > 0)
    entered = {(peer.ae_title, peer.address) for peer in session.scalars(select(Peer))}
    found = session.scalars(called.order_by(PeerActivity.ae_title, PeerActivity.address))
    return [each for each in found if (each.ae_title, each.address) not in entered]


def stations(session: Session) -> list[Station]:
    """Every peer that was entered or ever called, by AE title, with its last day and its usual gaps."""
    found: dict[str, Station] = {}
    for peer in session.scalars(select(Peer).order_by(Peer.disabled_at.is_not(None), Peer.id)):
        station = found.setdefault(peer.ae_title, Station(peer.ae_title))
        station.entries.append(peer)
    for activity in peers(session):
        found.setdefault(activity.ae_title, Station(activity.ae_title)).activity.append(activity)
    at = now()
    counted = (
        select(Instance.calling_ae_title, func.count())
        .where(Instance.received_at > at - TODAY)
        .group_by(Instance.calling_ae_title)
    )
    for ae_title, count in session.execute(counted):
        if ae_title in found:
            found[ae_title].today = count
    for ae_title, gap in _usual_gaps(session, at).items():
        if ae_title in found:
            found[ae_title].usual_gap = gap
    return [found[ae_title] for ae_title in sorted(found)]


def _usual_gaps(session: Session, at: datetime) -> dict[str, timedelta]:
    """Of each AE title, from its newest instances of two weeks: the gap that 99 of 100 are no longer than."""
    newest = (
        select(Instance.calling_ae_title, Instance.received_at)
        .where(Instance.received_at > at - GAPS_OF)
        .order_by(Instance.received_at.desc())
        .limit(MOST_RECENT)
    )
    times: dict[str, list[datetime]] = defaultdict(list)
    for ae_title, received in session.execute(newest):
        times[ae_title].append(received)
    usual = {}
    for ae_title, seen in times.items():
        gaps = [(later - earlier).total_seconds() for later, earlier in pairwise(seen)]
        if len(gaps) >= FEWEST_GAPS:
            usual[ae_title] = timedelta(seconds=quantiles(gaps, n=100, method="inclusive")[98])
    return usual
