"""Who may send: calling AE titles with their addresses, from the setting PEERS. An AE title authenticates nobody."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from service.errors import ConfigurationError


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
    """The allowed senders; none configured means open to all."""

    allowed: tuple[Peer, ...] = ()

    @classmethod
    def parse(cls, setting: str) -> "Peers":
        """Read ``US01@10.1.4.13,US02@10.1.4.0/24,PACS``.

        Raises:
            ConfigurationError: an entry has no AE title of at most 16 characters, or no valid address.
        """
        return cls(tuple(_peer(entry.strip()) for entry in setting.split(",") if entry.strip()))

    @property
    def open_to_all(self) -> bool:
        return not self.allowed

    def knows(self, ae_title: str) -> bool:
        return self.open_to_all or any(peer.ae_title == ae_title for peer in self.allowed)

    def allows(self, ae_title: str, address: str) -> bool:
        """May this AE title send from this address?"""
        return self.open_to_all or any(peer.allows(ae_title, address) for peer in self.allowed)


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
