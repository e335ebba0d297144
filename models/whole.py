"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which takes its name when the block ends well and else is removed."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write does not say of which file
        raise
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> Path:
    """Write a text in UTF-8; what stood there before stays when it cannot be written."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
