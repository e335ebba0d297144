"""Burned-in letters: fonts, writing, and the user's annotation text."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import ImageFont

from models.corruption.layouts import Layout
from models.corruption.phrases import annotation
from models.corruption.strokes import Canvas, Colour, Image
from models.corruption.styles import Pen, pick, split

# The last of every five is held out for testing (styles.split): faces, not variants of one.
FONTS: tuple[str, ...] = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "pil-sans",
    "pil-sans-bold",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "pil-bitmap",
    "pil-bitmap-tall",
    "hershey-simplex",
    "pil-sans",
    "DejaVuSans-Bold",
    "pil-sans-bold",
    "cmss10",
    "STIXGeneralBol",
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "pil-bitmap-bold",
    "pil-sans",
    "cmtt10",
)
STRETCHES = (0.75, 0.85, 1.0, 1.0, 1.0, 1.15, 1.3)
_HERSHEY = {"hershey-simplex": cv2.FONT_HERSHEY_SIMPLEX}


def fonts(held_out: bool) -> list[str]:
    return split(FONTS, held_out)


@lru_cache(maxsize=256)
def _face(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if name.startswith("pil-bitmap"):
        return ImageFont.load_default_imagefont()
    if name.startswith("pil-sans"):
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)


@lru_cache(maxsize=4096)
def letters(text: str, font: str, size: int, crisp: bool = False, stretch: float = 1.0) -> Image:
    """Coverage (0-255) of one line of text, `size` pixels high from ascender to descender."""
    coverage = _letters(text, font, size, crisp)
    # Letters drawn pixel by pixel cannot be stretched by a fraction.
    if stretch == 1.0 or crisp or "bitmap" in font:
        return coverage
    wide = (max(1, round(coverage.shape[1] * stretch)), coverage.shape[0])
    return np.asarray(
        cv2.resize(coverage, wide, interpolation=cv2.INTER_AREA if stretch < 1 else cv2.INTER_LINEAR), np.uint8
    )


def _letters(text: str, font: str, size: int, crisp: bool) -> Image:
    if font in _HERSHEY:
        return _hershey(text, font, size)
    mask = _face(font, size).getmask(text, mode="1" if crisp or "bitmap" in font else "L")
    coverage: Image = np.array(mask, np.uint8).reshape(mask.size[1], mask.size[0])
    if coverage.size == 0:
        return np.zeros((1, 1), np.uint8)
    coverage = np.where(coverage > 0, 255, 0).astype(np.uint8) if crisp or "bitmap" in font else coverage
    if "bitmap" in font:
        fold = max(1, round(size / 11))
        coverage = coverage.repeat(fold * 2 if font.endswith("tall") else fold, 0).repeat(fold, 1)
    if font.endswith("-bold"):
        coverage = np.asarray(cv2.dilate(np.pad(coverage, 1), np.ones((1, 2), np.uint8)), np.uint8)
    return np.asarray(coverage, np.uint8)


def _hershey(text: str, font: str, size: int) -> Image:
    face = _HERSHEY[font]
    fine = 4
    scale = size * fine / 30
    thickness = max(fine, round(size * fine / 14))
    (width, height), below = cv2.getTextSize(text, face, scale, thickness)
    plane = np.zeros((height + below + 2 * thickness, width + 2 * thickness), np.uint8)
    cv2.putText(plane, text, (thickness, height + thickness), face, scale, 255, thickness)
    small = (max(1, plane.shape[1] // fine), max(1, plane.shape[0] // fine))
    return np.asarray(cv2.resize(plane, small, interpolation=cv2.INTER_AREA), np.uint8)


def write(
    canvas: Canvas,
    text: str,
    x: float,
    y: float,
    font: str,
    size: int,
    colour: Colour,
    kind: int,
    *,
    crisp: bool = False,
    edge: str = "none",
    alpha: float = 1.0,
    stretch: float = 1.0,
    right_aligned: bool = False,
) -> tuple[int, int]:
    """Write one line, its top left (or right) corner at x, y; returns its size. `edge`: none, shadow, outline, tile."""
    coverage = letters(text, font, max(size, 6), crisp, stretch)
    left, top = round(x) - (coverage.shape[1] if right_aligned else 0), round(y)
    if edge == "shadow":
        canvas.stamp(coverage, left + 1, top + 1, (0, 0, 0), kind)
    elif edge == "tile":
        # Black letters on a tile of the ink's colour.
        tile = np.full((coverage.shape[0] + 4, coverage.shape[1] + 6), 255, np.uint8)
        canvas.stamp(tile, left - 3, top - 2, colour, kind, alpha=alpha)
        colour = (0, 0, 0)
    elif edge == "outline":
        swollen = np.asarray(cv2.dilate(np.pad(coverage, 1), np.ones((3, 3), np.uint8)), np.uint8)
        canvas.stamp(swollen, left - 1, top - 1, (0, 0, 0), kind)
    canvas.stamp(coverage, left, top, colour, kind, alpha=alpha)
    return coverage.shape[1], coverage.shape[0]


def draw(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, layout: Layout) -> None:
    """The user's annotation: one or two lines, mostly lower left but anywhere."""
    font = pick(rng, fonts(pen.held_out))
    size = int(np.clip(rng.uniform(11, 24) * pen.scale, 8, 64))
    edge = pick(rng, ("none", "shadow", "outline", "tile"), (0.58, 0.15, 0.24, 0.03))
    crisp = bool(rng.random() < 0.25)
    stretch = float(pick(rng, STRETCHES))
    place = pick(rng, ("lower", "upper", "anywhere"), (0.5, 0.15, 0.35))
    y0, y1 = {"lower": (0.6, 1.0), "upper": (0.02, 0.2), "anywhere": (0.0, 0.95)}[place]
    pane = layout.pick(rng)[0] if rng.random() < 0.7 else (0, 0, canvas.width, canvas.height)
    x = pane[0] + rng.uniform(-0.08, 0.7 if rng.random() < 0.5 else 0.25) * pane[2]
    y = pane[1] + rng.uniform(y0, y1) * pane[3]
    if rng.random() < 0.16:
        # Cut off by an edge of the image, as whoever crops to the tissue cuts it.
        edge_cut = pick(rng, ("bottom", "top", "left", "right"), (0.35, 0.15, 0.35, 0.15))
        if edge_cut in ("bottom", "top"):
            y = canvas.height - size * rng.uniform(0.3, 1.0) if edge_cut == "bottom" else -size * rng.uniform(0.1, 0.6)
        else:
            x = -size * rng.uniform(0.3, 4.0) if edge_cut == "left" else canvas.width - size * rng.uniform(0.5, 3.0)
    for _ in range(pick(rng, (1, 2, 3), (0.75, 0.2, 0.05))):
        width, height = write(
            canvas,
            annotation(rng),
            x,
            y,
            font,
            size,
            pen.colour,
            kind,
            crisp=crisp,
            edge=edge,
            alpha=pen.alpha,
            stretch=stretch,
        )
        y += height * 1.35
    if rng.random() < 0.08:
        # The text cursor, left where the typing ended.
        canvas.stamp(
            np.full((max(2, int(size * 0.9)), max(1, size // 9)), 255, np.uint8),
            round(x + width + 3),
            round(y - height * 1.35),
            pen.colour,
            kind,
        )
