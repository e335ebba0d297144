"""Which clean frames may appear in published pictures, and whom to name there."""

from __future__ import annotations

from models.dataset import CleanFrame

ATTRIBUTION = {
    "timtrack_ds1": "van der Zee, ultrasound-automated-algorithm (muscle, GE Logiq E9), CC0 1.0",
    "usgra": "usgra-seg (peripheral nerves of volunteers, Mindray TE7), CC BY 4.0, changed by drawing on it",
}
"""Data sets whose frames may be shown → how they are named under the picture."""


def may_be_shown(frame: CleanFrame) -> bool:
    """Only frames under CC0 or CC BY (not share-alike) whose makers can be named."""
    return frame.licence.startswith(("CC BY 4.0", "CC BY 2.0", "CC0")) and frame.source in ATTRIBUTION
