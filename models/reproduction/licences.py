"""Which clean frames may appear in published pictures, and whom to name there."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from models.dataset import CleanFrame

ATTRIBUTION = {
    "timtrack_ds1": "van der Zee, ultrasound-automated-algorithm (muscle, GE Logiq E9), CC0 1.0",
    "usgra": "usgra-seg (peripheral nerves of volunteers, Mindray TE7), CC BY 4.0, changed by drawing on it",
}
"""Data sets whose frames may be shown → how they are named under the picture."""


def licences(folder: Path) -> dict[str, str]:
    """File name → licence, from the folder's CSV files; empty where there is none."""
    found: dict[str, str] = {}
    for listing in sorted(folder.glob("*.csv")) + sorted(folder.glob("*/*.csv")):
        with listing.open(newline="") as text:
            found |= {Path(row["file"]).name: row["licence"] for row in csv.DictReader(text) if row.get("licence")}
    return found


def may_be_shown(frame: CleanFrame, known: Mapping[str, str]) -> bool:
    """Only frames under CC0 or CC BY (not share-alike) whose makers can be named."""
    licence = known.get(frame.path.name, "")
    free = licence.startswith(("CC BY 4.0", "CC BY 2.0", "CC0"))
    return free and frame.source in ATTRIBUTION
