"""The top of the heat map's scale: the 99.9th percentile of what the network removes on this site's frames.

Counted over the first frames whose residual anybody looked at, then fixed for that network, so that frames compare.
"""

import json
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.archive.cache import pictures

DEFAULT_TOP = 128  # grey levels, until enough frames were seen
FRAMES_NEEDED, FRAMES_COUNTED = 20, 200
SHARE = 0.999
STEP = 8  # the printed number is a round one

_lock = Lock()


def count(network: str, residual: NDArray[np.uint8]) -> None:
    """Add a frame's residual (rows, columns) to the site's histogram while that is open; a new network begins anew."""
    with _lock:
        kept = _read()
        if kept["network"] != network:
            kept = {"network": network, "frames": 0, "levels": [0] * 256}
        if kept["frames"] >= FRAMES_COUNTED:
            return
        seen = np.bincount(residual.reshape(-1), minlength=256)
        kept |= {
            "frames": kept["frames"] + 1,
            "levels": [a + int(b) for a, b in zip(kept["levels"], seen, strict=True)],
        }
        part = _path().with_suffix(".part")
        part.write_text(json.dumps(kept))
        part.replace(_path())


def top() -> int:
    """Grey levels at which the scale ends."""
    kept = _read()
    if kept["frames"] < FRAMES_NEEDED:
        return DEFAULT_TOP
    reached = np.cumsum(kept["levels"])
    level = int(np.searchsorted(reached, SHARE * reached[-1]))
    return min(255, max(STEP, -(-level // STEP) * STEP))


def _read() -> dict[str, Any]:
    try:
        return dict(json.loads(_path().read_bytes()))
    except FileNotFoundError:
        return {"network": "", "frames": 0, "levels": []}


def _path() -> Path:
    """Beside the pictures and not among them: it is small, holds no picture, and is not to be thrown away."""
    return pictures().folder.parent / "residuals.json"
