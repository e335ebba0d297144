"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


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


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """The folder, made where it is missing; when the block fails, what was made and is empty goes again."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
        raise


def write_whole(path: Path, text: str) -> Path:
    """Write a text in UTF-8; what stood there before stays when it cannot be written."""
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, told: Any) -> Path:
    """Write figures as JSON, which has no word for a number that is none, as the share of no cases: it is null."""
    return write_whole(path, json.dumps(_finite(told), indent=1, allow_nan=False))


def _finite(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _finite(each) for name, each in told.items()}
    if isinstance(told, list | tuple):
        return [_finite(each) for each in told]
    return None if isinstance(told, float) and not math.isfinite(told) else told
