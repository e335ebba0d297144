"""Simulated scanner screens: the frame in its place among the things a scanner draws by itself.

Everything here but letters belongs to the clean frame. Letters are left out of it, and `letter` draws them as text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from models.corruption import lookalikes
from models.corruption.strokes import Canvas, Image
from models.corruption.styles import CYANS, GREYS, WHITES, YELLOWS, pick, shaded
from models.corruption.texts import banner, fonts, parameter, write


@dataclass
class Layout:
    """Where the tissue lies on a screen (x, y, width, height), and where the scanner's own letters go: x, y, what it is."""

    tissue: tuple[int, int, int, int]
    scale: float
    held_out: bool
    letters: list[tuple[float, float, str]] = field(default_factory=list)


def compose(frame: Image, rng: np.random.Generator, on_screen: bool, held_out: bool) -> tuple[Image, Layout]:
    """The clean frame, on a screen or bare, with look-alikes of marks on it; and its layout."""
    height, width = frame.shape[:2]
    if not on_screen or min(width, height) < 48:
        canvas = Canvas(frame)
        lookalikes.on_tissue(canvas, rng, (0, 0, width, height))
        return canvas.image, Layout((0, 0, width, height), 1.0, held_out)
    left, right = (int(width * rng.uniform(0.02, 0.22)) for _ in range(2))
    top, bottom = int(height * rng.uniform(0.03, 0.16)), int(height * rng.uniform(0.02, 0.2))
    # The screen keeps about the frame's size: shrink the tissue to make room.
    shrink = rng.uniform(0.75, 1.0)
    w, h = int(width * shrink), int(height * shrink)
    tissue = cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA)
    surround = pick(rng, ((0, 0, 0), (0, 0, 0), (8, 8, 10), (20, 22, 26), (12, 16, 24)))
    screen = np.empty((h + top + bottom, w + left + right, 3), np.uint8)
    screen[:] = surround
    tissue = lookalikes.fan(np.asarray(tissue, np.uint8), rng, surround)
    screen[top:top + h, left:left + w] = tissue
    canvas = Canvas(screen)
    scale = float(np.clip((width * height) ** 0.5 / 620, 0.5, 3.0))
    layout = Layout((left, top, w, h), scale, held_out)
    lookalikes.on_tissue(canvas, rng, layout.tissue)
    lookalikes.around(canvas, rng, layout.tissue, scale)
    _reserve(canvas, rng, layout)
    return canvas.image, layout


def _reserve(canvas: Canvas, rng: np.random.Generator, layout: Layout) -> None:
    x, y, w, h = layout.tissue
    step = 15 * layout.scale
    for row in range(int(rng.integers(1, 3))):
        for column in range(int(rng.integers(1, 5))):
            layout.letters.append((canvas.width * (0.02 + 0.25 * column), 3 + row * step, "banner"))
    side = 4.0 if x > canvas.width - x - w else x + w + 8.0
    if rng.random() < 0.75:
        start = y + h * rng.uniform(0.05, 0.4)
        for row in range(int(rng.integers(3, 14))):
            layout.letters.append((side, start + row * step, "parameter"))
    if rng.random() < 0.3:
        layout.letters.append((x + w * rng.uniform(0, 0.6), y + h + 4, "parameter"))


def letter(canvas: Canvas, rng: np.random.Generator, layout: Layout, kind: int) -> None:
    """Write the scanner's letters, in places that differ from one rendering to the next as another screen's would."""
    if not layout.letters or rng.random() < 0.3:
        return
    font = pick(rng, fonts(layout.held_out))
    size = int(np.clip(rng.uniform(9, 15) * layout.scale, 7, 40))
    colour = shaded(rng, pick(rng, pick(rng, (WHITES, GREYS, YELLOWS, CYANS), (0.5, 0.3, 0.1, 0.1))))
    crisp = bool(rng.random() < 0.35)
    shift = rng.uniform(-0.5, 0.5, 2) * size
    make: dict[str, Callable[[np.random.Generator], str]] = {"banner": banner, "parameter": parameter}
    for x, y, name in layout.letters:
        if rng.random() < 0.85:
            write(canvas, make[name](rng), x + shift[0], y + shift[1], font, size, colour, kind, crisp=crisp)
