"""The failpoints that the product's source names, and the part whose death at each of them is tested."""

import re
from pathlib import Path

import service

VICTIMS = {"receive": "receive", "analyse": "work", "sweep": "sweep"}


def failpoints(tree: Path | None = None) -> list[str]:
    """Every name given to ``fp`` in the source, sorted."""
    root = tree or Path(service.__file__).parent
    return sorted({name for path in root.rglob("*.py") for name in re.findall(r'\bfp\("([\w.]+)"\)', path.read_text())})


def victim(point: str) -> str:
    """The part that passes this point; empty when `acceptance/test_kills` knows none."""
    return VICTIMS.get(point.partition(".")[0], "")
