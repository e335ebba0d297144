"""Who may send: calling AE titles with their addresses and options, of the settings and of the administrators' page.

An AE title authenticates nobody; TLS does.

The setting PEERS holds them in one line, ``US01@10.1.4.13,US02@10.1.4.0/24;port=104;tls=required,PACS``. A TOML file,
PEERS_FILE, says the same at more length; both may be used:

    [[peer]]
    ae_title = "US02"
    address = "10.1.4.0/24"
    port = 104
    tls = "required"
"""

import tomllib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from service import logs
from service.db import peers as rows
from service.db import selftests, switches
from service.db.session import Database
from service.db.tables import Peer as PeerRow
from service.dicom.character_sets import understood
from service.errors import ConfigurationError, DatabaseAway

log = logs.get(__name__)

SYNTHETIC_AE_TITLE = "SONOMARK_TEST"  # calls with studies of the self-test
REFRESH_S = 3.0

DICOM_PORT = 104  # registered for DICOM; what a peer without a port of its own listens on


_LIST_THEM = "Set SONOMARK_PEERS to the carts' AE titles and addresses, or enter them on the page Peers."
_ENTER_ONE = "Enable or enter one on the page Peers, or open the door to all there."


def _network(value: Any) -> Any:
    return ip_network(value, strict=False) if isinstance(value, str) else value


def _character_set(value: str) -> str:
    if not understood(value):
        raise PydanticCustomError("character_set", "No Defined Term of Specific Character Set, as ISO_IR 192 is one")
    return value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
CharacterSet = Annotated[str, AfterValidator(_character_set)]


class Peer(BaseModel):
    """One allowed sender; without an address it may call from anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: str = Field(min_length=1, max_length=16)
    address: Network | None = None
    port: int = Field(DICOM_PORT, ge=1, le=65535)  # where it hears storage commitment reports
    reports: Literal["new", "same"] = "new"  # on an association of their own, or on the one that asked
    tls: Literal["optional", "required"] = "optional"
    certificate: str = ""  # a name that its TLS certificate must bear, whichever side calls
    character_set: CharacterSet = ""  # in place of what its data sets declare, or do not declare
    priority: int = Field(0, ge=-100, le=100)  # of its instances in the queue, the smaller the sooner
    max_associations: int = Field(0, ge=0)  # at once; 0: no limit of its own

    def allows(self, ae_title: str, address: str) -> bool:
        """Is this the one that calls by that title from there?"""
        return ae_title == self.ae_title and (self.address is None or ip_address(address) in self.address)

    @property
    def closeness(self) -> int:
        """How closely its address says who it is: among several that allow a caller the closest is meant."""
        return -1 if self.address is None else self.address.prefixlen

    def __str__(self) -> str:
        return self.ae_title if self.address is None else f"{self.ae_title}@{self.address}"


class Peers(BaseModel):
    """The allowed senders; none configured means open to all, unless ``closed`` says that there once were some."""

    model_config = ConfigDict(frozen=True)

    allowed: tuple[Peer, ...] = ()
    closed: bool = False

    @classmethod
    def parse(cls, setting: str, file: Path | None = None) -> "Peers":
        """Read the setting and the file.

        Raises:
            ConfigurationError: an entry has no AE title of at most 16 characters, no valid address, or an option that
            is none.
        """
        listed = [_peer(entry.strip()) for entry in setting.split(",") if entry.strip()]
        return cls(allowed=(*listed, *(_peers(file) if file is not None else [])))

    @property
    def open_to_all(self) -> bool:
        return not self.allowed and not self.closed

    def knows(self, ae_title: str) -> bool:
        return self.open_to_all or any(peer.ae_title == ae_title for peer in self.allowed)

    def allows(self, ae_title: str, address: str) -> bool:
        """May this AE title send from this address?"""
        return self.open_to_all or any(peer.allows(ae_title, address) for peer in self.allowed)

    def of(self, ae_title: str, address: str) -> Peer:
        """The options of this sender; the usual ones where nothing is configured."""
        found = next((peer for peer in self.allowed if peer.allows(ae_title, address)), None)
        return found or Peer(ae_title=ae_title or "ANY")


class Register:
    """The allowed senders of the settings and those that administrators entered, which may change at any time.

    The database is asked every few seconds; while it is away the last answer holds.
    """

    def __init__(self, of_settings: Peers, database: Database) -> None:
        self._of_settings = of_settings
        self._database = database
        self._lock = Lock()
        self._peers = of_settings
        self._told = ""
        self._amiss: set[str] = set()
        self._draining = False
        self._asked_at = -REFRESH_S

    def look(self) -> None:
        """Ask the database now, and say whom the door lets in."""
        self._now()

    @property
    def open_to_all(self) -> bool:
        return self._now().open_to_all

    @property
    def of_settings(self) -> list[str]:
        """Those of the settings, as the dashboard shows them: it need not have the receiver's settings."""
        return [str(peer) for peer in self._of_settings.allowed]

    @property
    def draining(self) -> bool:
        """Whether an administrator wants no new association to begin."""
        self._now()
        return self._draining

    def knows(self, ae_title: str) -> bool:
        return ae_title == SYNTHETIC_AE_TITLE or self._now().knows(ae_title)

    def allows(self, ae_title: str, address: str) -> bool:
        """May this AE title send from this address? The house's own self-test always may from its own machine."""
        own = ae_title == SYNTHETIC_AE_TITLE and ip_address(address).is_loopback
        return own or self._now().allows(ae_title, address)

    def self_tests(self, ae_title: str) -> frozenset[str]:
        """Studies of self-tests under way, if it is their AE title that calls.

        Whoever began one wrote its study's UID, which nobody can guess, into the database: that is its ticket, wherever
        the dashboard's container happens to stand.
        """
        if ae_title != SYNTHETIC_AE_TITLE:
            return frozenset()
        try:
            with self._database.read() as session:
                return frozenset(selftests.under_way(session))
        except DatabaseAway:
            return frozenset()

    def of(self, ae_title: str, address: str) -> Peer:
        """The options of this sender; the usual ones where nothing is configured."""
        return self._now().of(ae_title, address)

    def _now(self) -> Peers:
        with self._lock:
            if monotonic() - self._asked_at >= REFRESH_S:
                self._asked_at = monotonic()
                try:
                    with self._database.read() as session:
                        entered = self._entered(rows.let_in(session))
                        closed = rows.closes(session)
                        self._draining = switches.is_on(session, switches.DRAINING)
                except DatabaseAway:
                    log.warning("database away, the peers known last still hold")
                else:
                    self._peers = Peers(allowed=(*self._of_settings.allowed, *entered), closed=closed)
                self._say()
            return self._peers

    def _entered(self, found: Iterable[PeerRow]) -> list[Peer]:
        """What administrators entered, the closest addresses first; says once what of it cannot be."""
        peers, amiss = [], set()
        for row in found:
            peer, wrong = _entered(row)
            if peer is not None:
                peers.append(peer)
            if wrong:
                outcome = "not let in" if peer is None else "let in with the usual instead, of TLS with the stricter"
                amiss.add(f"{row.ae_title}@{row.address}, {', '.join(sorted(wrong))}: {outcome}")
        for each in sorted(amiss - self._amiss):
            log.warning("a peer was entered as none can be", which=each, cure="Enter it again on the page Peers.")
        self._amiss = amiss
        return sorted(peers, key=lambda peer: -peer.closeness)

    def _say(self) -> None:
        """Log whom the door lets in, when it starts and when an administrator has changed that."""
        if self._peers.open_to_all:
            told, cure = "OPEN TO ALL: any AE title from any address may send", _LIST_THEM
        elif not self._peers.allowed:
            told, cure = "CLOSED TO ALL: no peer that was entered is let in", _ENTER_ONE
        else:
            told, cure = f"listed peers may send: {len(self._peers.allowed)}", ""
        if told != self._told:
            self._told = told
            log.warning(told, cure=cure) if cure else log.info(told)


def _entered(row: PeerRow) -> tuple[Peer | None, set[str]]:
    """What an administrator entered, and which of it cannot be: written by hand, or understood by newer code alone.

    Nothing of that may raise here, as the door would be shut to everybody. The usual stands in its place, but TLS is
    required; without a title or an address that can be there is no peer: it would let others in than was meant.
    """
    values: dict[str, Any] = {name: getattr(row, name) for name in Peer.model_fields}
    values["address"] = row.address or None
    values["port"] = row.port or DICOM_PORT
    try:
        return Peer.model_validate(values), set()
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors()}
    if wrong & {"ae_title", "address"}:
        return None, wrong
    values = {name: value for name, value in values.items() if name not in wrong}
    return Peer.model_validate(values | ({"tls": "required"} if "tls" in wrong else {})), wrong


def _peer(entry: str) -> Peer:
    name, *options = (part.strip() for part in entry.split(";"))
    ae_title, _, address = name.partition("@")
    values: dict[str, str] = {"ae_title": ae_title, **({"address": address} if address else {})}
    for option in options:
        key, _, value = option.partition("=")
        values[key.strip()] = value.strip()
    try:
        return Peer.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(
            f"The peer '{entry}' is not understood: {_first(error)}.",
            cure="Correct SONOMARK_PEERS: AET, AET@address or AET@network/bits, then ;option=value.",
        ) from error


def _peers(file: Path) -> list[Peer]:
    cure = "Correct the file that SONOMARK_PEERS_FILE names: one [[peer]] with an ae_title for each."
    try:
        content = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.", cure=cure) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is no TOML: {error}.", cure=cure) from error
    try:
        return [Peer.model_validate(entry) for entry in content.get("peer", [])]
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {_first(error)}.", cure=cure) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
