"""Peers and stations: whom the door lets in, who sent, who has fallen quiet, and whether they answer an echo.

An open door closes with the first peer that is entered, and a door whose last peer is disabled lets nobody in. Either
stops a hospital's machines from sending, so the page says it beforehand and asks for a word of the administrator's own.
"""

import re
from datetime import timedelta
from ipaddress import ip_network
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from service.db import audit, peers, switches
from service.db.session import database
from service.db.tables import Peer, PeerActivity, now
from service.deliver import selftest
from service.deliver.send import Node, echo
from service.errors import Conflict, NotAllowed, PeerError, SonomarkError
from service.review.deps import Account, Admin
from service.review.pages import render
from service.review.schemas import Id
from service.settings import settings

router = APIRouter(include_in_schema=False)

AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")  # PS3.5 6.2, without @

CLOSED_WITH = timedelta(days=14)  # who sent within these is let in too, if wanted, when the first peer closes the door

Text = Annotated[str, Form(max_length=128)]
Ticked = Annotated[bool, Form()]


@router.get("/peers")
def peers_page(request: Request, account: Admin) -> Response:
    """Every AE title that may send or ever called."""
    return _page(request)


@router.post("/peers")
def add_peer(
    request: Request,
    account: Admin,
    ae_title: Text,
    address: Text = "",
    port: Text = "",
    description: Text = "",
    closes: Ticked = False,
    senders: Ticked = False,
) -> Response:
    """Let a peer in. ``closes``: also if that shuts everybody else out; ``senders``: but not those who sent of late."""
    try:
        number = _port(port)
        _require_peer(ae_title.strip(), address.strip(), number)
        with database().begin() as session:
            if peers.door(session, settings().peers).open_to_all and not closes:
                raise NotAllowed(
                    "The door is open to all callers; with its first peer it closes to everybody else.",
                    cure="Tick that it shall, or list the machines in SONOMARK_PEERS first.",
                )
            peer = peers.add(session, ae_title.strip(), address.strip(), number, description.strip(), account.user.name)
            _note(session, account, "peer.add", peer)
            for sender in _senders(session) if senders else ():
                other = peers.add(session, sender.ae_title, sender.address, None, "", account.user.name)
                _note(session, account, "peer.add", other)
            switches.turn_off(session, switches.OPEN)
    except SonomarkError as error:
        given = {"ae_title": ae_title, "address": address, "port": port, "description": description}
        return _page(request, problem=str(error), given=given, status=422)
    return RedirectResponse("/peers", status_code=303)


@router.post("/peers/open")
def open_door(request: Request, account: Admin, reason: Annotated[str, Form(max_length=255)] = "") -> Response:
    """Let everybody in, where every peer that was entered is disabled."""
    if not reason.strip():
        return _page(request, problem="Say why; the audit trail keeps it.", status=422)
    with database().begin() as session:
        if not peers.door(session, settings().peers).closed:
            raise Conflict("The door is not closed.", cure="Load the page again.")
        switches.turn_on(session, switches.OPEN, account.user.name, reason.strip())
        audit.record(session, account.user.name, "peer.open", "", account.address, {"reason": reason.strip()})
    return RedirectResponse("/peers", status_code=303)


@router.post("/peers/{number}")
def edit_peer(
    request: Request, number: Id, account: Admin, address: Text = "", port: Text = "", description: Text = ""
) -> Response:
    """Change where a peer is."""
    try:
        with database().begin() as session:
            peer = peers.get(session, number)
            _require_peer(peer.ae_title, address.strip(), _port(port))
            peer.address, peer.port, peer.description = address.strip(), _port(port), description.strip()
            _note(session, account, "peer.edit", peer)
    except NotAllowed as error:
        return _page(request, problem=str(error), status=422)
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
        return _page(request, problem=str(error), status=422)
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
        echo(Node(peer.ae_title, peer.address, peer.port), calling_ae_title=settings().ae_title)
    except PeerError as error:
        told = str(error)
    with database().begin() as session:
        peer = peers.get(session, number)
        peer.echoed_at, peer.echo, peer.echo_ms = now(), told[:255], round((perf_counter() - began) * 1000)
        _note(session, account, "peer.echo", peer)
    if request.headers.get("hx-request") == "true":
        return render(request, "peer_echo.html", {"peer": peer})
    return RedirectResponse("/peers", status_code=303)


def _require_peer(ae_title: str, address: str, port: int | None) -> None:
    if len(ae_title) > 16 or not AE_TITLE.fullmatch(ae_title) or "@" in ae_title or "," in ae_title:
        raise NotAllowed(
            "An AE title has 1 to 16 characters, and none of @ , and \\.",
            cure="It stands in the scanner's DICOM setup.",
        )
    try:
        network = ip_network(address, strict=False) if address else None
    except ValueError as error:
        raise NotAllowed(
            "This is no IP address and no network.", cure="Write 10.1.4.13, or 10.1.4.0/24 for a network."
        ) from error
    if port is not None and (network is None or network.num_addresses != 1):
        raise NotAllowed("A port needs one address.", cure="Enter the peer's IP address, or leave the port empty.")


def _port(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isascii() or not text.strip().isdigit() or not 1 <= int(text) <= 65535:
        raise NotAllowed("A port is a number from 1 to 65535.", cure="DICOM's own is 104, scanners often use 11112.")
    return int(text)


def _page(request: Request, *, problem: str = "", given: dict[str, str] | None = None, status: int = 200) -> Response:
    at = now()
    with database().read() as session:
        context: dict[str, Any] = {
            "stations": peers.stations(session),
            "door": peers.door(session, settings().peers),
            "senders": _senders(session),
        }
    context |= {
        "at": at,
        "house": settings(),
        "own_test": selftest.AE_TITLE,
        "problem": problem,
        "given": given or {},
    }
    return render(request, "peers.html", context, status=status)


def _senders(session: Session) -> list[PeerActivity]:
    """Who sent of late and is not entered; the house's own self-test needs no entry."""
    return [each for each in peers.senders(session, now() - CLOSED_WITH) if each.ae_title != selftest.AE_TITLE]


def _note(session: Session, account: Account, action: str, peer: Peer) -> None:
    detail = {"address": peer.address, "port": peer.port}
    audit.record(session, account.user.name, action, peer.ae_title, account.address, detail)
