"""What can go wrong in training; each error says what happened, to which file, and what to do."""

from __future__ import annotations

import errno

from service.errors import SonomarkError


class TrainingError(SonomarkError):
    """The training module cannot go on."""


class RecipeError(TrainingError):
    """A recipe cannot be read or asks for something that does not exist."""


class DataError(TrainingError):
    """The training data cannot be used."""


class LeakySplit(DataError):
    """Training and validation share a source that should be held out, or a patient group."""


class Diverged(TrainingError):
    """The loss is not a finite number any more."""

    cure = "Resume from the last checkpoint with a lower `optimiser.rate` in the recipe."


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def of_the_system(error: OSError) -> TrainingError:
    """What the operating system refused, in words."""
    where = error.filename2 or error.filename or "A file"
    if error.errno in _FULL:
        cure = "Make room on the disk or take another folder, then give the same command again."
        return TrainingError(f"{where} cannot be written: {error.strerror}.", cure=cure)
    if error.errno in _FORBIDDEN:
        cure = "Take a folder that you may read and write, or ask for the right to."
        return TrainingError(f"{where} may not be used: {error.strerror}.", cure=cure)
    cure = "See that the path is right and its disk is well, then give the same command again, or take another place."
    return TrainingError(f"{where} cannot be used: {error.strerror or error}.", cure=cure)
