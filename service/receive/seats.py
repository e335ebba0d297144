"""Seats: how many associations there are at once, in all, of one peer and from one address."""

import mmap
import os
import struct
from collections import Counter
from pathlib import Path
from threading import Lock

from service.receive.peers import Peer

_COUNT = struct.Struct("<I")


class Tally:
    """Seats taken in each of several receiver processes, in a file that they map; one alone needs none."""

    def __init__(self, file: Path, processes: int) -> None:
        size = _COUNT.size * processes
        if processes == 1:
            self._memory = mmap.mmap(-1, size)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(descriptor, size)
                self._memory = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        self._processes = processes

    def total(self) -> int:
        """Seats taken in all processes."""
        return sum(_COUNT.unpack_from(self._memory, _COUNT.size * process)[0] for process in range(self._processes))

    def put(self, process: int, count: int) -> None:
        """Say how many this process has."""
        _COUNT.pack_into(self._memory, _COUNT.size * process, count)


class Seats:
    """The seats of one process. Limits of a peer and of an address count in each process for itself."""

    def __init__(self, most: int, most_of_an_address: int, tally: Tally, process: int) -> None:
        self._most = most
        self._most_of_an_address = most_of_an_address
        self._tally = tally
        self._process = process
        self._taken: dict[str, tuple[str, str]] = {}  # AE title and address by association
        self._lock = Lock()
        tally.put(process, 0)  # one that died in this place may have left its own

    def take(self, association: str, peer: Peer, address: str) -> str:
        """Take a seat; empty when there was one, else why there is none."""
        with self._lock:
            titles = Counter(title for title, _ in self._taken.values())
            addresses = Counter(known for _, known in self._taken.values())
            if self._tally.total() >= self._most:
                return "too many associations"
            if peer.max_associations and titles[peer.ae_title] >= peer.max_associations:
                return "too many associations of this peer"
            if addresses[address] >= self._most_of_an_address:
                return "too many associations from this address"
            self._taken[association] = (peer.ae_title, address)
            self._tally.put(self._process, len(self._taken))
            return ""

    def leave(self, association: str) -> None:
        """The association has ended; one that never had a seat may say so too."""
        with self._lock:
            self._taken.pop(association, None)
            self._tally.put(self._process, len(self._taken))
