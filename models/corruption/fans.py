"""Shapes of the field of view: curved and phased sectors, virtual convex and steered linear probes, or a rectangle."""

from __future__ import annotations

import cv2
import numpy as np

from models.corruption.layouts import Fan
from models.corruption.strokes import Colour, Image
from models.corruption.styles import pick

SHAPES = ("rectangle", "curved", "phased", "trapezoid", "steered")


def shaped(tissue: Image, rng: np.random.Generator, surround: Colour) -> tuple[Image, Fan | None]:
    """The tissue within a field of view on the screen's ground; the fan is in the tissue's own coordinates."""
    height, width = tissue.shape[:2]
    # A frame that is black round its tissue takes the screen's ground there.
    tissue = np.asarray(cv2.max(tissue, np.full_like(tissue, surround)), np.uint8) if any(surround) else tissue
    shape = pick(rng, SHAPES, (0.55, 0.23, 0.1, 0.06, 0.06))
    if shape == "rectangle" or min(height, width) < 40:
        return tissue, None
    fan = None
    if shape in ("curved", "phased"):
        fan = _sector(rng, width, height, phased=shape == "phased")
        if rng.random() < 0.5:
            tissue = bent(tissue, fan)
        corners = fan.outline()
    else:
        inset = width * rng.uniform(0.05, 0.25)
        skew = 0.0 if shape == "trapezoid" else 1.0
        corners = np.array(
            [[inset, 0], [width - inset * (1 - skew), 0], [width - inset * skew, height], [0, height]], np.float64
        )
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    shown = np.empty_like(tissue)
    shown[:] = surround
    cv2.copyTo(tissue, (mask > 127).astype(np.uint8), shown)
    return shown, fan


def _sector(rng: np.random.Generator, width: int, height: int, phased: bool) -> Fan:
    half = rng.uniform(30, 46) if phased else rng.uniform(20, 40)
    near = height * (rng.uniform(0.0, 0.03) if phased else rng.uniform(0.06, 0.4))
    above = near * np.cos(np.radians(half)) if rng.random() < 0.8 else near
    reach = height + above
    if reach * np.sin(np.radians(half)) > width / 2 and rng.random() < 0.7:
        half = float(np.degrees(np.arcsin(min(0.99, width / 2 / reach))))
    return Fan(width / 2, float(-above), float(near), float(reach), float(half))


def bent(tissue: Image, fan: Fan) -> Image:
    """Lay a straight tissue image out along the fan's beams, as a curved probe shows it."""
    height, width = tissue.shape[:2]
    # The map is smooth: computed at an eighth of the size and enlarged.
    rows, columns = np.mgrid[0 : height + 8 : 8, 0 : width + 8 : 8].astype(np.float32)
    dx, dy = columns - fan.x, rows - fan.y
    radius = np.hypot(dx, dy)
    along = (np.degrees(np.arctan2(dx, dy)) / fan.half * 0.5 + 0.5) * (width - 1)
    depth = (radius - fan.near) / (fan.reach - fan.near) * (height - 1)
    maps = [
        cv2.resize(m.astype(np.float32), None, fx=8, fy=8, interpolation=cv2.INTER_LINEAR)[
            4 : 4 + height, 4 : 4 + width
        ]
        for m in (along, depth)
    ]
    return np.asarray(cv2.remap(tissue, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.uint8)
