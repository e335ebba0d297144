"""Arrows and hand cursors that point at a finding."""

from __future__ import annotations

import numpy as np

from models.corruption.strokes import Canvas, Points, Stroke, arc, line, turned
from models.corruption.styles import Pen, pick, split

ARROWS: tuple[str, ...] = (
    "filled head",
    "open head",
    "block",
    "pointer",
    "double head",
    "head only",
    "hand",
    "thin",
    "hollow block",
    "curved",
)

# Share of training arrows made up on the spot: head, shaft and tail of any make.
MADE_UP = 0.55

_HAND = np.array(
    [
        (0, 0),
        (0.12, 0),
        (0.14, 0.38),
        (0.3, 0.36),
        (0.34, 0.42),
        (0.48, 0.4),
        (0.52, 0.47),
        (0.64, 0.47),
        (0.68, 0.56),
        (0.64, 0.85),
        (0.56, 1.0),
        (0.14, 1.0),
        (-0.02, 0.8),
        (-0.2, 0.6),
        (-0.16, 0.54),
        (0.0, 0.62),
    ],
    np.float64,
)
_POINTER = np.array([(0, 0), (0, 0.85), (0.2, 0.66), (0.33, 0.98), (0.46, 0.92), (0.33, 0.62), (0.6, 0.6)], np.float64)


def draw(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, name: str | None = None) -> None:
    """One to three arrows of one look."""
    own = made_up(rng, pen.width) if name is None and not pen.held_out and rng.random() < MADE_UP else []
    name = name or pick(rng, split(ARROWS, pen.held_out))
    length = float(rng.uniform(20, 70) * pen.scale)
    degrees = float(rng.uniform(0, 360))
    # They are the smallest marks: training sees more of them at a time.
    for _ in range(pick(rng, (1, 2, 3), (0.7, 0.2, 0.1) if pen.held_out else (0.5, 0.3, 0.2))):
        x, y = rng.uniform(0.05, 0.95) * canvas.width, rng.uniform(0.05, 0.95) * canvas.height
        if own:
            parts = [Stroke(turned(s.points * length, degrees), s.width, s.closed) for s in own]
            strokes, outline = [Stroke(s.points + np.array([x, y]), s.width, s.closed) for s in parts], False
        else:
            strokes, outline = shape(name, rng, float(x), float(y), length, degrees, pen.width)
        if pen.edge or outline:
            canvas.draw(
                [Stroke(s.points, s.width + 2 if s.width else 2.4, s.closed or not s.width) for s in strokes],
                (0, 0, 0),
                kind,
            )
        canvas.draw(strokes, pen.colour, kind, alpha=pen.alpha, fineness=pen.fineness)
        degrees += float(rng.normal(0, 50))


def made_up(rng: np.random.Generator, width: float) -> list[Stroke]:
    """Strokes of an arrow no table has, its tip at the origin and its length 1 along the negative x axis."""
    head, half = rng.uniform(0.18, 0.6), rng.uniform(0.08, 0.3)
    notch = rng.uniform(-0.5, 0.9) * head
    barbs = np.array([[-head, -half], [0, 0], [-head, half]])
    solid = np.array([[-head, -half], [0, 0], [-head, half], [-head + notch * 0.6, 0]])
    parts = [Stroke(solid, 0 if rng.random() < 0.6 else width, True) if rng.random() < 0.65 else Stroke(barbs, width)]
    shaft = _shaft(rng, -head * 0.8)
    thick = half * rng.uniform(0.15, 0.7)
    make = pick(rng, ("line", "wedge", "band", "hollow", "double", "none"), (0.42, 0.14, 0.14, 0.1, 0.08, 0.12))
    if make == "line":
        parts.append(Stroke(shaft, width * rng.uniform(0.7, 1.6)))
    elif make in ("band", "hollow", "wedge"):
        far = 0.0 if make == "wedge" else thick
        band = np.array([[-1, -far], [-head * 0.9, -thick], [-head * 0.9, thick], [-1, far]])
        parts.append(Stroke(band, width if make == "hollow" else 0, True))
    elif make == "double":
        parts += [Stroke(shaft + np.array([0.0, side * thick]), width) for side in (-1, 1)]
    if make in ("line", "double"):
        tail = _tail(rng, half * rng.uniform(0.5, 1.1), width)
        parts += [Stroke(s.points + np.array([0.0, shaft[0, 1]]), s.width, s.closed) for s in tail]
    return parts


def _shaft(rng: np.random.Generator, end: float) -> Points:
    """From the tail to ``end`` along the x axis, where it arrives level: straight, bowed, waved, bent or hooked."""
    t = np.linspace(0, 1, 12)
    reach = rng.uniform(0.08, 0.4) * pick(rng, (-1, 1))
    aside = {
        "straight": 0 * t,
        "bowed": reach * np.sin(t * np.pi),
        "waved": reach / 2 * np.sin(t * 2 * np.pi),
        "bent": reach * (1 - np.minimum(1, t / 0.6)),
        "hooked": reach * np.cos(t * np.pi / 2) ** 2,
    }[pick(rng, ("straight", "bowed", "waved", "bent", "hooked"), (0.45, 0.27, 0.08, 0.1, 0.1))]
    return np.stack([-1 + t * (1 + end), aside], axis=1)


def _tail(rng: np.random.Generator, half: float, width: float) -> list[Stroke]:
    """What ends a shaft behind, if anything: a bar, feathers, a ball or a ring. A second head is kept for testing."""
    make = pick(rng, ("none", "bar", "feathers", "ball", "ring"), (0.62, 0.14, 0.12, 0.06, 0.06))
    if make == "bar":
        return [Stroke(line(-1, -half, -1, half), width)]
    if make == "feathers":
        vane = np.array([[-1 - half, -half], [-1, 0], [-1 - half, half]])
        return [Stroke(vane + np.array([step * half * 0.7, 0.0]), width) for step in range(pick(rng, (1, 2, 3)))]
    if make in ("ball", "ring"):
        return [Stroke(arc(-1, 0, half * 0.6, half * 0.6, steps=14), 0 if make == "ball" else width, True)]
    return []


def shape(
    name: str, rng: np.random.Generator, x: float, y: float, length: float, degrees: float, width: float
) -> tuple[list[Stroke], bool]:
    """Strokes of an arrow whose tip is at x, y, and whether it always has a dark edge."""
    head = max(length * rng.uniform(0.22, 0.4), 4 * width)
    half = head * rng.uniform(0.3, 0.55)
    if name in ("hand", "pointer"):
        size = max(length * 0.6, 14)
        return [Stroke((_HAND if name == "hand" else _POINTER) * size + (x, y), 0)], True
    tip = np.array([[-head, -half], [0, 0], [-head, half]])
    shaft = line(-length, 0, -head * 0.8, 0)
    if name == "filled head":
        parts = [Stroke(tip, 0), Stroke(shaft, width)]
    elif name in ("open head", "thin"):
        parts = [
            Stroke(tip, 1.0 if name == "thin" else width),
            Stroke(line(-length, 0, 0, 0), 1.0 if name == "thin" else width),
        ]
    elif name == "double head":
        parts = [Stroke(tip, 0), Stroke(-tip - (length, 0), 0), Stroke(line(-length + head, 0, -head, 0), width)]
    elif name == "head only":
        parts = [Stroke(np.array([[-head, -half], [0, 0], [-head, half]]), 0)]
    elif name == "curved":
        t = np.linspace(0, 1, 12)[:, None]
        parts = [
            Stroke(tip, 0),
            Stroke(np.hstack([-length + t * (length - head), np.sin(t * np.pi) * length * 0.2]), width),
        ]
    else:
        s = half * 0.45
        outline = np.array(
            [[0, 0], [-head, -half], [-head, -s], [-length, -s], [-length, s], [-head, s], [-head, half]]
        )
        parts = [Stroke(outline, 0 if name == "block" else width, True)]
    return [Stroke(turned(s.points, degrees) + np.array([x, y]), s.width, s.closed) for s in parts], False
