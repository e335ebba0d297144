"""A file that cannot be read now, told apart from one that holds nonsense: what is in the first one nobody knows."""

import errno
from pathlib import Path

from service.errors import Unreadable

# What a place in the file that its own content names, and that no file has, makes of a seek.
_NONSENSE = (errno.EINVAL, errno.EOVERFLOW)


def is_fault(error: OSError) -> bool:
    """Whether the system could not read. Libraries raise OSErrors of their own about content; those have no number."""
    return error.errno is not None and error.errno not in _NONSENSE


def unreadable(path: Path, error: OSError) -> Unreadable:
    """What to tell of a fault met while ``path`` was read."""
    return Unreadable(f"{path.name} could not be read: {error.strerror or type(error).__name__}.")
