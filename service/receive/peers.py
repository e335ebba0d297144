"""Who may send: calling AE titles with their addresses, of the setting PEERS and of the administrators' page.

An AE title authenticates nobody.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from threading import Lock
from time import monotonic

from service import logs
from service.db import peers as rows
from service.db import switches
from service.db.session import Database
from service.errors import ConfigurationError, DatabaseAway

log = logs.get(__name__)

SYNTHETIC_AE_TITLE = "SONOMARK_TEST"  # calls with studies of the self-test
REFRESH_S = 3.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One allowed sender; without a network it may call from anywhere."""

    ae_title: str
    network: IPv4Network | IPv6Network | None = None

    def allows(self, ae_title: str, address: str) -> bool:
        if ae_title != self.ae_title:
            return False
        return self.network is None or ip_address(address) in self.network


@dataclass(frozen=True, slots=True)
class Peers:
    """The allowed senders; none configured means open to all, unless ``closed`` says that there once were some."""

    allowed: tuple[Peer, ...] = ()
    closed: bool = False

    @classmethod
    def parse(cls, setting: str) -> "Peers":
        """Read ``US01@10.1.4.13,US02@10.1.4.0/24,PACS``.

        Raises:
            ConfigurationError: an entry has no AE title of at most 16 characters, or no valid address.
        """
        return cls(tuple(_peer(entry.strip()) for entry in setting.split(",") if entry.strip()))

    @property
    def open_to_all(self) -> bool:
        return not self.allowed and not self.closed

    def knows(self, ae_title: str) -> bool:
        return self.open_to_all or any(peer.ae_title == ae_title for peer in self.allowed)

    def allows(self, ae_title: str, address: str) -> bool:
        """May this AE title send from this address?"""
        return self.open_to_all or any(peer.allows(ae_title, address) for peer in self.allowed)


class Register:
    """The allowed senders of the settings and those that administrators entered, which may change at any time.

    The database is asked every few seconds; while it is away the last answer holds.
    """

    def __init__(self, of_settings: Peers, database: Database) -> None:
        self._of_settings = of_settings
        self._database = database
        self._lock = Lock()
        self._peers = of_settings
        self._draining = False
        self._asked_at = -REFRESH_S

    @property
    def open_to_all(self) -> bool:
        return self._now().open_to_all

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

    def _now(self) -> Peers:
        with self._lock:
            if monotonic() - self._asked_at >= REFRESH_S:
                self._asked_at = monotonic()
                try:
                    with self._database.read() as session:
                        entered = [_peer(f"{each.ae_title}@{each.address}") for each in rows.let_in(session)]
                        closed = rows.any_entered(session)
                        self._draining = switches.is_on(session, switches.DRAINING)
                except DatabaseAway:
                    log.warning("database away, the peers known last still hold")
                else:
                    self._peers = Peers(self._of_settings.allowed + tuple(entered), closed)
            return self._peers


def _peer(entry: str) -> Peer:
    ae_title, _, address = entry.partition("@")
    if not ae_title or len(ae_title) > 16:
        raise ConfigurationError(
            f"The peer '{entry}' has no AE title of 1 to 16 characters.", cure="Correct SONOMARK_PEERS."
        )
    try:
        return Peer(ae_title, ip_network(address, strict=False) if address else None)
    except ValueError as error:
        raise ConfigurationError(
            f"The peer '{entry}' has no valid address.",
            cure="Correct SONOMARK_PEERS: AET@address or AET@network/bits.",
        ) from error
