"""Peers and stations: whom the door lets in, who sent, who has fallen quiet, and whether they answer an echo.

An open door closes with the first peer that is entered, and a door whose last peer is disabled lets nobody in. Either
stops a hospital's machines from sending, so the page says it beforehand and asks for a word of the administrator's own.
"""

import re
from datetime import timedelta
from ipaddress import ip_address, ip_network
from ssl import SSLContext
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.db import audit, peers, switches
from service.db.session import database
from service.db.tables import Peer, PeerActivity, now
from service.deliver import selftest
from service.deliver.send import Node, echo
from service.dicom.character_sets import DEFINED_TERMS, understood
from service.errors import ConfigurationError, Conflict, NotAllowed, PeerError, SonomarkError
from service.receive.tls import Tls
from service.review.deps import Account, Admin
from service.review.pages import render
from service.review.schemas import Id
from service.settings import settings

router = APIRouter(include_in_schema=False)

AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")  # PS3.5 6.2, without @

CLOSED_WITH = timedelta(days=14)  # who sent within these is let in too, if wanted, when the first peer closes the door

MOST_URGENT, LEAST_URGENT = -100, 100
MOST_ASSOCIATIONS = 10_000
LONGEST_NAME = 253  # of a host
OPTIONS = {"port", *peers.OPTIONS}  # fields that are folded away

Ticked = Annotated[bool, Form()]


class Wrong(NotAllowed):
    """What stands in a field of the form cannot be."""

    def __init__(self, field: str, what: str, *, cure: str) -> None:
        super().__init__(what, cure=cure)
        self.field = field


class Entry(BaseModel):
    """What the form holds; an option that it leaves out is the usual one."""

    ae_title: str = Field("", max_length=128)
    address: str = Field("", max_length=128)
    description: str = Field("", max_length=128)
    port: str = Field("", max_length=128)
    reports: Literal["new", "same"] = "new"
    tls: Literal["optional", "required"] = "optional"
    certificate: str = Field("", max_length=1024)
    character_set: str = Field("", max_length=128)
    priority: str = Field("", max_length=128)
    max_associations: str = Field("", max_length=128)
    version: str = Field("", max_length=64)  # of the peer when its form was made
    closes: bool = False  # the door to everybody else
    senders: bool = False  # are let in too: those who sent of late

    @classmethod
    def of(cls, peer: Peer) -> "Entry":
        """The form as it is when nothing in it was changed yet."""
        return cls(
            ae_title=peer.ae_title,
            address=peer.address,
            description=peer.description,
            port=str(peer.port or ""),
            reports="same" if peer.reports == "same" else "new",
            tls="optional" if peer.tls == "optional" else "required",
            certificate=peer.certificate,
            character_set=peer.character_set,
            priority=str(peer.priority or ""),
            max_associations=str(peer.max_associations or ""),
            version=peers.version(peer),
        )

    def columns(self, character_set: str = "") -> dict[str, Any]:
        """Of the peer's row, all but its AE title; ``character_set`` is there already, and may stay.

        Raises:
            Wrong: something cannot be; names its field.
        """
        address = self.address.strip()
        _require_address(address)
        return {
            "address": address,
            "description": self.description.strip(),
            "port": _port(self.port),
            "reports": self.reports,
            "tls": self.tls,
            "certificate": _certificate(self.certificate.strip()),
            "character_set": _character_set(self.character_set.strip(), character_set),
            "priority": _priority(self.priority.strip()),
            "max_associations": _max_associations(self.max_associations.strip()),
        }


Entered = Annotated[Entry, Form()]


@router.get("/peers")
def peers_page(request: Request, account: Admin, edit: Annotated[Id | None, Query()] = None) -> Response:
    """Every AE title that may send or ever called; ``edit``: the peer whose form is open."""
    if edit is None:
        return _page(request)
    with database().read() as session:
        peer = peers.get(session, edit)
    return _page(request, edited=peer, given=Entry.of(peer))


@router.post("/peers")
def add_peer(request: Request, account: Admin, entry: Entered) -> Response:
    """Let a peer in: by ``closes`` also if that shuts everybody else out, by ``senders`` but not those of late."""
    ae_title = entry.ae_title.strip()
    try:
        _require_title(ae_title)
        columns = entry.columns()
        with database().begin() as session:
            if peers.door(session, settings().peers).open_to_all and not entry.closes:
                raise NotAllowed(
                    "The door is open to all callers; with its first peer it closes to everybody else.",
                    cure="Tick that it shall, or list the machines in SONOMARK_PEERS first.",
                )
            peer = peers.add(session, ae_title=ae_title, by=account.user.name, **columns)
            _note(session, account, "peer.add", peer, **peers.unusual(peer))
            for sender in _senders(session) if entry.senders else ():
                if _lets_in(peer, sender):  # an entry of its own would be closer, and without the options entered here
                    continue
                other = peers.add(session, sender.ae_title, sender.address, None, "", account.user.name)
                _note(session, account, "peer.add", other)
            switches.turn_off(session, switches.OPEN)
    except SonomarkError as error:
        return _page(request, error=error, given=entry, status=422)
    return RedirectResponse("/peers", status_code=303)


@router.post("/peers/open")
def open_door(request: Request, account: Admin, reason: Annotated[str, Form(max_length=255)] = "") -> Response:
    """Let everybody in, where every peer that was entered is disabled."""
    if not reason.strip():
        return _page(request, error=Wrong("why", "Say why; the audit trail keeps it.", cure=""), status=422)
    with database().begin() as session:
        if not peers.door(session, settings().peers).closed:
            raise Conflict("The door is not closed.", cure="Load the page again.")
        switches.turn_on(session, switches.OPEN, account.user.name, reason.strip())
        audit.record(session, account.user.name, "peer.open", "", account.address, {"reason": reason.strip()})
    return RedirectResponse("/peers", status_code=303)


@router.post("/peers/{number}")
def edit_peer(request: Request, number: Id, account: Admin, entry: Entered) -> Response:
    """Change where a peer is, and its options."""
    with database().read() as session:
        peer = peers.get(session, number)
    try:
        columns = entry.columns(peer.character_set)
        with database().begin() as session:
            row = peers.get(session, number)
            if entry.version != peers.version(row):
                entry.version = peers.version(row)
                raise Conflict(
                    f"{row.ae_title} was changed since this form was made; nothing of yours was saved yet.",
                    cure="The table says what holds now. Save again if yours shall hold instead.",
                )
            if changed := peers.change(session, row, columns):
                _note(session, account, "peer.edit", row, changed=changed)
    except (NotAllowed, Conflict) as error:
        return _page(request, error=error, edited=peer, given=entry, status=409 if isinstance(error, Conflict) else 422)
    return RedirectResponse("/peers", status_code=303)


@router.post("/peers/{number}/disable")
def disable_peer(request: Request, number: Id, account: Admin, closes: Ticked = False) -> Response:
    """No longer let it in; it can be enabled again. ``closes``: also if that shuts the door to everybody."""
    try:
        with database().begin() as session:
            peer = peers.get(session, number)
            peer.disabled_at = now()
            session.flush()
            if peers.door(session, settings().peers).closed and not closes:  # another may have been disabled meanwhile
                raise NotAllowed(
                    f"{peer.ae_title} is the last one let in: without it the door is closed, and nobody may send.",
                    cure="Disable it again if that is meant.",
                )
            _note(session, account, "peer.disable", peer)
    except NotAllowed as error:
        return _page(request, error=error, status=422)
    return RedirectResponse("/peers", status_code=303)


@router.post("/peers/{number}/enable")
def enable_peer(number: Id, account: Admin) -> Response:
    """Let it in again."""
    with database().begin() as session:
        peer = peers.get(session, number)
        peer.disabled_at = None
        switches.turn_off(session, switches.OPEN)
        _note(session, account, "peer.enable", peer)
    return RedirectResponse("/peers", status_code=303)


@router.post("/peers/{number}/echo")
def echo_peer(request: Request, number: Id, account: Admin) -> Response:
    """Ask the peer for a C-ECHO; answers with its cell alone."""
    with database().read() as session:
        peer = peers.get(session, number)
    if peer.port is None or not peer.address or "/" in peer.address:
        raise NotAllowed("This peer has no one address and port to ask.", cure="Enter both.")
    began, told = perf_counter(), ""
    try:
        tls = _tls(peer) if peer.tls == "required" else None
        echo(Node(peer.ae_title, peer.address, peer.port), calling_ae_title=settings().ae_title, tls=tls)
    except (PeerError, ConfigurationError) as error:
        told = str(error)
    with database().begin() as session:
        peer = peers.get(session, number)
        peer.echoed_at, peer.echo, peer.echo_ms = now(), told[:255], round((perf_counter() - began) * 1000)
        _note(session, account, "peer.echo", peer)
    if request.headers.get("hx-request") == "true":
        return render(request, "peer_echo.html", {"peer": peer})
    return RedirectResponse("/peers", status_code=303)


def _tls(peer: Peer) -> tuple[SSLContext, str]:
    own = Tls.of(settings())
    if own is None:
        raise PeerError(
            f"{peer.ae_title} must use TLS, and the dashboard has no certificate to call it with.",
            cure="Set SONOMARK_DICOM_CERTIFICATE and SONOMARK_DICOM_PRIVATE_KEY for it as for the receiver.",
        )
    return own.calling(peer.certificate, peer.address)


def _require_title(ae_title: str) -> None:
    if len(ae_title) > 16 or not AE_TITLE.fullmatch(ae_title) or "@" in ae_title or "," in ae_title:
        raise Wrong(
            "ae_title",
            "An AE title has 1 to 16 characters, and none of @ , and \\.",
            cure="It stands in the scanner's DICOM setup.",
        )


def _require_address(address: str) -> None:
    try:
        ip_network(address or "0.0.0.0/0", strict=False)
    except ValueError as error:
        raise Wrong(
            "address",
            "This is no IP address and no network.",
            cure="Write 10.1.4.13, or 10.1.4.0/24 for a network.",
        ) from error


def _port(text: str) -> int | None:
    cure = "DICOM's own is 104, scanners often use 11112."
    return _number(text, "port", "A port is a number from 1 to 65535.", cure, 1, 65535)


def _priority(text: str) -> int:
    told = f"A priority is a whole number from {MOST_URGENT} to {LEAST_URGENT}."
    cure = "The smaller, the sooner; 0 is the usual one."
    return _number(text, "priority", told, cure, MOST_URGENT, LEAST_URGENT) or 0


def _max_associations(text: str) -> int:
    told = f"Associations at once are a number from 1 to {MOST_ASSOCIATIONS:,}."
    cure = "Leave it empty for no limit of the peer's own."
    return _number(text, "max_associations", told, cure, 1, MOST_ASSOCIATIONS) or 0


def _number(text: str, field: str, told: str, cure: str, least: int, most: int) -> int | None:
    """None where nothing was entered."""
    if not text.strip():
        return None
    if not re.fullmatch(r"-?[0-9]{1,6}", text.strip()) or not least <= int(text) <= most:
        raise Wrong(field, told, cure=cure)
    return int(text)


def _certificate(name: str) -> str:
    """A name that may stand in a certificate, and be asked for in a call."""
    try:
        name.encode("idna")
        fits = len(name) <= LONGEST_NAME and name.isprintable() and not name.startswith(".")
    except UnicodeError:
        fits = False
    if not fits:
        raise Wrong(
            "certificate",
            "This cannot be the name of a certificate.",
            cure="Write its common name or one of its DNS names, as us01.example; empty lets every one do.",
        )
    return name


def _character_set(term: str, standing: str) -> str:
    if term not in ("", *DEFINED_TERMS) and not (term == standing and understood(term)):
        raise Wrong("character_set", "This is none of the character sets here.", cure="Choose one of the list.")
    return term


def _page(
    request: Request,
    *,
    error: SonomarkError | None = None,
    edited: Peer | None = None,
    given: Entry | None = None,
    status: int = 200,
) -> Response:
    with database().read() as session:
        context: dict[str, Any] = {
            "stations": peers.stations(session),
            "door": peers.door(session, settings().peers),
            "senders": _senders(session),
        }
    context |= {
        "at": now(),
        "house": settings(),
        "own_test": selftest.AE_TITLE,
        "problem": str(error or ""),
        "wrong": error.field if isinstance(error, Wrong) else "",
        "edited": edited,
        "given": given or Entry(),
        "opened": given is not None and given.model_dump(include=OPTIONS) != Entry().model_dump(include=OPTIONS),
        "character_sets": DEFINED_TERMS,
        "priorities": (MOST_URGENT, LEAST_URGENT),
        "most_associations": MOST_ASSOCIATIONS,
    }
    return render(request, "peers.html", context, status=status)


def _senders(session: Session) -> list[PeerActivity]:
    """Who sent of late and is not entered; the house's own self-test needs no entry."""
    return [each for each in peers.senders(session, now() - CLOSED_WITH) if each.ae_title != selftest.AE_TITLE]


def _lets_in(peer: Peer, caller: PeerActivity) -> bool:
    if peer.ae_title != caller.ae_title:
        return False
    return not peer.address or ip_address(caller.address) in ip_network(peer.address, strict=False)


def _note(session: Session, account: Account, action: str, peer: Peer, **more: Any) -> None:
    detail = {"address": peer.address, "port": peer.port, **more}
    audit.record(session, account.user.name, action, peer.ae_title, account.address, detail)
