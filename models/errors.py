"""What can go wrong in training; each error says what happened, to which file, and what to do."""

from __future__ import annotations

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
