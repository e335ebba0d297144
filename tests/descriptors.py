"""Descriptors taken away from a process: each file that it would open fails, whatever is in it."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_descriptor_left(pid: int = 0) -> Iterator[None]:
    """Within the block the process (0: this one) opens nothing more; what it has open stays open."""
    which = pid or os.getpid()
    limits = resource.prlimit(which, resource.RLIMIT_NOFILE)
    resource.prlimit(which, resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(which, resource.RLIMIT_NOFILE, limits)
