"""What tissue shows, or a scanner lays over it, that looks like a mark and is none: it belongs to the clean frame."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.corruption.layouts import Beam, Layout, Pane
from models.corruption.strokes import Canvas, Stroke, arc, dashed, line, noise, rasterised, rectangle, turned
from models.corruption.styles import CYANS, GREENS, WHITES, YELLOWS, pick, shaded, ui_colour
from models.corruption.texts import letters


def on_tissue(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, duplex: bool = False) -> None:
    """Draw some of them on one pane; most frames get none or one. A duplex screen shows the beam that is followed."""
    for drawn, chance in CHANCES.items():
        if rng.random() < chance:
            drawn(canvas, rng, pane)
    if rng.random() < (0.7 if duplex else 0.06):
        beam = _gate(rng, pane)
        canvas.draw(beam.strokes, beam.colour, fineness=beam.fineness)
        layout.beams.append(beam)


def _tint(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """A coloured grey map: sepia, blue, green."""
    x, y, w, h = pane
    level = np.arange(256) / 255.0
    warmth = pick(
        rng,
        ((1.0, 0.85, 0.6), (0.75, 0.9, 1.0), (1.0, 0.9, 0.75), (0.85, 0.8, 1.0), (0.8, 1.0, 0.85), (1.0, 0.7, 0.45)),
    )
    curve = [255 * level ** rng.uniform(0.9, 1.1) * (c + (1 - c) * level**2) for c in warmth]
    table = np.stack(curve, axis=1).astype(np.uint8)[None]
    part = canvas.image[y : y + h, x : x + w]
    canvas.image[y : y + h, x : x + w] = cv2.LUT(part, table)


def _glow(canvas: Canvas, rng: np.random.Generator, strokes: list[Stroke], grey: int, alpha: float) -> None:
    """Draw as an echo shows: blurred along the beam and broken by speckle, never as clean as ink."""
    drawn = rasterised(strokes, canvas.width, canvas.height, 2)
    if drawn is None:
        return
    x, y, coverage = drawn
    coverage = np.asarray(cv2.GaussianBlur(coverage, (0, 0), rng.uniform(0.6, 1.6)), np.uint8)
    h, w = coverage.shape
    # An echo stands in tissue: none where the frame is black.
    around = canvas.image[y : y + h, x : x + w, 1]
    tissue = cv2.resize(cv2.resize(around, (max(1, w // 8), max(1, h // 8)), interpolation=cv2.INTER_AREA), (w, h))
    speckle = np.clip(0.75 + 0.35 * noise(rng, w, h, rng.uniform(2, 4)) + 0.25 * noise(rng, w, h, 14), 0, 1.2)
    canvas.stamp(
        np.clip(coverage * speckle * np.minimum(tissue / 24.0, 1), 0, 255).astype(np.uint8),
        x,
        y,
        (grey, grey, grey),
        alpha=alpha,
    )


def _needle(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """A biopsy needle with its reverberations."""
    x, y, w, h = pane
    left = rng.random() < 0.5
    start = (x if left else x + w, y + h * rng.uniform(0.05, 0.4))
    angle = np.radians(rng.uniform(5, 45))
    length = w * rng.uniform(0.3, 0.7)
    end = (start[0] + (length if left else -length) * np.cos(angle), start[1] + length * np.sin(angle))
    grey = int(rng.integers(150, 240))
    thickness, gap = rng.uniform(1.0, 3.0), rng.uniform(4, 9)
    for echo in range(int(rng.integers(1, 4))):
        _glow(
            canvas,
            rng,
            [Stroke(line(*start, *end) + np.array([0, echo * gap]), thickness)],
            grey,
            float(rng.uniform(0.7, 1.0) / (1 + echo)),
        )


def _membrane(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """A bright pleural or fascial line, uneven as tissue is."""
    x, y, w, h = pane
    t = np.linspace(0, 1, 24)
    level = (
        y + h * rng.uniform(0.1, 0.8) + np.sin(t * rng.uniform(1, 4) + rng.uniform(0, 6)) * h * rng.uniform(0.0, 0.05)
    )
    span = x + w * (rng.uniform(0, 0.4) + t * rng.uniform(0.3, 0.6))
    _glow(
        canvas,
        rng,
        [Stroke(np.stack([span, level], 1), rng.uniform(1, 4))],
        int(rng.integers(190, 250)),
        float(rng.uniform(0.5, 1.0)),
    )


def _ringing(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """Reverberations at the face of the probe: bright parallel lines, or arcs where it is curved."""
    x, y, w, _ = pane
    centre, radius = x + w * rng.uniform(0.4, 0.6), w * rng.uniform(0.1, 1.5)
    half = float(np.degrees(rng.uniform(0.1, 0.45) * min(w / 2 / radius, 1.0)))
    gap = rng.uniform(3, 8)
    for i in range(int(rng.integers(2, 8))):
        reach = radius + i * gap
        path = arc(centre, y - radius, reach, reach, 90 - half, 90 + half, 24) + np.array([0, gap])
        _glow(
            canvas, rng, [Stroke(path, rng.uniform(1, 2.5))], int(rng.integers(140, 250)), float(rng.uniform(0.5, 1.0))
        )


def _in_air(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """A probe that touches nobody: black, but for the crisp rings or lines of its own reverberation."""
    x, y, w, h = pane
    canvas.image[y : y + h, x : x + w] = (canvas.image[y : y + h, x : x + w] * rng.uniform(0, 0.15)).astype(np.uint8)
    upside_down = rng.random() < 0.4
    centre, radius = x + w * rng.uniform(0.35, 0.65), w * rng.uniform(0.05, 1.5)
    half = float(np.degrees(rng.uniform(0.3, 1.0) * min(w / 2 / radius, np.pi / 2)))
    gap, fade = rng.uniform(2, 7), rng.uniform(0.6, 0.98)
    for i in range(int(rng.integers(4, 14))):
        reach = radius + i * gap
        path = arc(0, -radius, reach, reach, 90 - half, 90 + half, 32)
        path = path * np.array([1, -1 if upside_down else 1]) + np.array([centre, y + h - 2 if upside_down else y + 2])
        grey = int(255 * fade**i)
        canvas.draw([Stroke(path, rng.uniform(1, gap * 0.7))], (grey, grey, grey))


def _specular(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """Short bright reflections, some of them crossing."""
    x, y, w, h = pane
    for _ in range(int(rng.integers(1, 6))):
        at = (x + w * rng.random(), y + h * rng.random())
        long, thin = rng.uniform(3, 9), rng.uniform(1, 2.5)
        blob = [Stroke(turned(line(at[0] - long, at[1], at[0] + long, at[1]), rng.normal(0, 15), *at), thin)]
        if rng.random() < 0.4:
            blob.append(Stroke(line(at[0], at[1] - long * 0.5, at[0], at[1] + long), thin * 1.5))
        _glow(canvas, rng, blob, int(rng.integers(200, 255)), float(rng.uniform(0.5, 1.0)))


def _grid(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """Depth dots down the middle or all over."""
    x, y, w, h = pane
    step = max(12, int(min(w, h) / rng.uniform(6, 14)))
    columns = [x + w // 2] if rng.random() < 0.5 else list(range(x + step, x + w, step))
    for column in columns:
        for row in range(y + step, y + h, step):
            if 0 <= row < canvas.height and 0 <= column < canvas.width:
                canvas.image[row, column] = 220


def _stray(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """Single bright pixels."""
    x, y, w, h = pane
    for _ in range(int(rng.integers(1, 20))):
        row, column = min(y + int(rng.integers(h)), canvas.height - 1), min(x + int(rng.integers(w)), canvas.width - 1)
        canvas.image[row, column] = int(rng.integers(180, 256))


def _corner_glyph(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """The vendor's own letter at a top corner, often cut off: a sign of the probe's orientation, no text."""
    x, y, w, _ = pane
    size = int(rng.uniform(9, 17) * max(1.0, w / 700))
    glyph = letters(
        pick(rng, ("Q", "P", "V", "G", "m", "S", "E", "M", "T", "U", "O")),
        pick(rng, ("DejaVuSans-Bold", "pil-sans-bold", "pil-sans")),
        size,
    )
    left = x + int(rng.uniform(-0.6, 0.6) * size) if rng.random() < 0.7 else x + w - size
    top = y + int(rng.uniform(-0.5, 0.6) * size)
    if rng.random() < 0.4:
        # In a ring, a box or a shield, or underlined; or nothing but these.
        reach = glyph.shape[0] * rng.uniform(0.6, 0.9)
        at = np.array([left + glyph.shape[1] / 2, top + glyph.shape[0] / 2])
        frame = pick(
            rng,
            (
                arc(0, 0, reach, reach),
                rectangle(-reach, -reach, reach, reach),
                np.vstack([line(reach, -reach, -reach, -reach), arc(0, 0, reach, reach, 180, 0, 16)]),
                line(-reach, reach, reach, reach),
            ),
            (0.36, 0.3, 0.2, 0.14),
        )
        canvas.draw([Stroke(frame + at, rng.uniform(1, 2), True)], ui_colour(rng))
        if rng.random() < 0.4:
            return
    if rng.random() < 0.5:
        black = np.full((glyph.shape[0] + 3, glyph.shape[1] + 3), 255, np.uint8)
        canvas.stamp(black, left - 1, top - 1, (0, 0, 0))
    canvas.stamp(glyph, left, top, ui_colour(rng))


def _gate(rng: np.random.Generator, pane: Pane) -> Beam:
    """A Doppler cursor with its sample volume, or an M-mode line; at times longer than the tissue is deep."""
    x, y, w, h = pane
    top = (x + w * rng.uniform(0.25, 0.75), float(y))
    angle = rng.normal(0, 14)
    beyond = h * rng.uniform(0, 0.1) if rng.random() < 0.4 else 0.0
    path = turned(line(top[0], top[1] - beyond, top[0], top[1] + h + beyond), angle, *top)
    colour = shaded(rng, pick(rng, pick(rng, (WHITES, GREENS, YELLOWS, CYANS), (0.4, 0.3, 0.15, 0.15))))
    style = pick(rng, ("dashed", "dotted", "solid"))
    on = rng.uniform(4, 12) if style == "dashed" else 1.0
    pieces = [path] if style == "solid" else dashed(path, on, rng.uniform(3, 8))
    strokes = [Stroke(piece, 1.0) for piece in pieces]
    if rng.random() < 0.75:
        at = path[0] + (path[1] - path[0]) * rng.uniform(0.3, 0.8)
        strokes += _sample_volume(rng, float(at[0]), float(at[1]), angle)
    return Beam(strokes, colour, int(pick(rng, (4, 1), (0.7, 0.3))))


def _sample_volume(rng: np.random.Generator, x: float, y: float, angle: float) -> list[Stroke]:
    """Where on the beam the flow is measured: two bars, a box or a ring, and the line of the corrected angle."""
    half, gap = rng.uniform(4, 11), rng.uniform(2, 6)
    shape = pick(rng, ("bars", "ring", "box", "broken ring"), (0.6, 0.16, 0.1, 0.14))
    if shape == "bars":
        strokes = [
            Stroke(turned(line(x - half, y + s * gap, x + half, y + s * gap), angle, x, y), 1.3) for s in (-1, 1)
        ]
    elif shape == "box":
        box = np.array([[x - half, y - gap], [x + half, y - gap], [x + half, y + gap], [x - half, y + gap]])
        strokes = [Stroke(turned(box, angle, x, y), 1.0, True)]
    else:
        ring = arc(x, y, half, half * rng.uniform(0.6, 1.0))
        strokes = (
            [Stroke(ring, 1.0, True)] if shape == "ring" else [Stroke(p, 1.0) for p in dashed(ring, half, half / 2)]
        )
    if rng.random() < 0.5:
        reach = rng.uniform(12, 40)
        strokes.append(Stroke(turned(line(x - reach, y, x + reach, y), rng.uniform(0, 180), x, y), 1.0))
    return strokes


def _needle_guide(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """The dotted path, or pair of paths, a needle guide promises."""
    x, y, w, h = pane
    left = rng.random() < 0.5
    start = (x + (0 if left else w), y + h * rng.uniform(0, 0.3))
    path = turned(
        line(*start, start[0] + (w if left else -w), start[1]), rng.uniform(20, 60) * (1 if left else -1), *start
    )
    colour = ui_colour(rng)
    for side in range(int(rng.integers(1, 3))):
        canvas.draw(
            [Stroke(dot, 1.2) for dot in dashed(path + np.array([0, side * h * 0.06]), 1.5, rng.uniform(5, 14))],
            colour,
        )


def _edge_triangle(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """A focus mark or the probe's orientation triangle, inside the edge of the pane."""
    x, y, w, h = pane
    s = rng.uniform(3, 7)
    side = pick(rng, ("left", "right", "top"))
    at = {
        "left": (x + s + 1, y + h * rng.uniform(0.1, 0.9)),
        "right": (x + w - s - 1, y + h * rng.uniform(0.1, 0.9)),
        "top": (x + w * rng.uniform(0.02, 0.3), y + s + 1),
    }[side]
    turn = {"left": 180.0, "right": 0.0, "top": 90.0}[side]
    triangle = turned(np.array([[-s, 0.0], [s, -s], [s, s]]), turn) + at
    canvas.draw([Stroke(triangle, 0 if rng.random() < 0.7 else 1.2, True)], ui_colour(rng))


def _inner_ticks(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """Depth or width ticks that lie on the tissue."""
    x, y, w, h = pane
    step = h / rng.uniform(4, 30)
    length = rng.uniform(2, 9)
    at = x if rng.random() < 0.5 else x + w - length
    colour = ui_colour(rng)
    canvas.draw(
        [Stroke(line(at, y + i * step, at + length, y + i * step), 1.0) for i in range(int(h / step))],
        colour,
        fineness=1,
    )


def _bubble(canvas: Canvas, rng: np.random.Generator, pane: Pane) -> None:
    """A round reverberation or a vessel wall seen end on: a bright ring of tissue, no marker."""
    x, y, w, h = pane
    at = (x + w * rng.random(), y + h * rng.random())
    radius = rng.uniform(4, 16)
    start = rng.uniform(0, 360)
    wall = arc(*at, radius, radius * rng.uniform(0.5, 1), start, start + rng.uniform(90, 300), 14)
    _glow(canvas, rng, [Stroke(wall, rng.uniform(1, 3))], int(rng.integers(180, 240)), float(rng.uniform(0.4, 0.9)))


CHANCES: dict[Callable[[Canvas, np.random.Generator, Pane], None], float] = {
    _tint: 0.08,
    _needle: 0.05,
    _ringing: 0.05,
    _membrane: 0.06,
    _specular: 0.08,
    _grid: 0.03,
    _stray: 0.08,
    _bubble: 0.04,
    _corner_glyph: 0.1,
    _in_air: 0.02,
    _needle_guide: 0.025,
    _edge_triangle: 0.08,
    _inner_ticks: 0.04,
}
