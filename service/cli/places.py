"""Files and folders that a command was told to read or to write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import ConfigurationError


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Raises ConfigurationError, in the system's own words, where the block cannot write there."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{place} cannot be written: {error.strerror or error}.",
            cure="Name another place, or give this account the right to write there.",
        ) from error


def text_of(file: Path) -> str:
    """What a text file says. Raises ConfigurationError where it cannot be read, or is no text."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{file} cannot be read: {error.strerror or error}.",
            cure="Name another file, or give this account the right to read it.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8 text.", cure="Save it as UTF-8.") from error
