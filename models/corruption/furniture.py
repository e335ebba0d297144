"""What a scanner draws round the tissue besides letters: ticks, bars, traces, strips, logos, buttons; never a mark."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.corruption.doppler import MAPS, colour_map
from models.corruption.layouts import Layout, Lettering, Pane
from models.corruption.strokes import Canvas, Colour, Image, Stroke, arc, line, noise, rectangle, smooth
from models.corruption.styles import CYANS, GREENS, YELLOWS, pick, shaded, ui_colour


def ticks(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """A depth scale beside the pane, with its numbers."""
    x, y, w, h = pane
    right = rng.random() < 0.7
    at = x + w + rng.uniform(1, 14) * scale if right else x - rng.uniform(4, 14) * scale
    step = h / rng.uniform(2.5, 9)
    minor = int(pick(rng, (1, 2, 5, 10)))
    shape = pick(rng, ("tick", "dot", "diamond"), (0.75, 0.2, 0.05))
    strokes = []
    for i in range(int(h / step * minor) + 1):
        whole = i % minor == 0
        row = y + i * step / minor
        if shape == "tick":
            length = (rng.uniform(5, 8) if whole else 3) * scale
            strokes.append(Stroke(line(at, row, at + length, row), 1.0))
        else:
            radius = (1.8 if whole else 1.0) * scale
            strokes.append(
                Stroke(
                    arc(
                        at,
                        row,
                        radius,
                        radius * (1.5 if shape == "diamond" else 1),
                        steps=5 if shape == "diamond" else 10,
                    ),
                    0,
                )
            )
    canvas.draw(strokes, ui_colour(rng), fineness=1 if shape == "tick" else 4)
    if rng.random() < 0.55:
        first, unit = int(rng.integers(0, 2)), int(pick(rng, (1, 1, 2, 5)))
        size = rng.uniform(9, 13) * scale
        for i in range(first, int(h / step) + 1):
            text = f"{i * unit}" if rng.random() < 0.97 else f"{i * unit}cm"
            layout.letters.append(
                Lettering(at + (9 if right else -8) * scale, y + i * step - size * 0.45, size, text, not right)
            )


def rulers(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """Width ticks above or below the pane."""
    x, y, w, h = pane
    row = y - rng.uniform(3, 8) * scale if rng.random() < 0.6 else y + h + rng.uniform(2, 8) * scale
    step = w / rng.uniform(3, 12)
    length = rng.uniform(2, 6) * scale
    canvas.draw(
        [
            Stroke(line(x + i * step, row, x + i * step, row + length), rng.choice([1.0, 2.0]))
            for i in range(int(w / step) + 1)
        ],
        ui_colour(rng),
        fineness=1,
    )


def grey_bar(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    height = int(pane[3] * rng.uniform(0.12, 0.6))
    _bar(canvas, rng, pane, np.linspace(255, 0, height).astype(np.uint8), None)


def colour_bar(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The scale of a colour map, with its limits."""
    height = int(pane[3] * rng.uniform(0.12, 0.4))
    left, top = _bar(canvas, rng, pane, np.linspace(255, 0, height).astype(np.uint8), pick(rng, MAPS))
    if rng.random() < 0.6:
        speed = f"{rng.uniform(2, 90):.1f}" if rng.random() < 0.6 else f"{int(rng.integers(3, 99))}"
        size = rng.uniform(8, 12) * scale
        unit = pick(rng, ("", "", "cm/s"))
        layout.letters += [
            Lettering(left - 3, top - size * 1.2, size, f"{pick(rng, ('+', ''))}{speed}{unit}"),
            Lettering(left - 3, top + height + 2, size, f"-{speed}{unit}"),
        ]


def _bar(canvas: Canvas, rng: np.random.Generator, pane: Pane, ramp: Image, name: str | None) -> tuple[int, int]:
    x, y, w, h = pane
    width = int(rng.integers(5, 22))
    if rng.random() < 0.5:
        left = max(2, x - width - int(rng.integers(2, 30)))
    else:
        left = min(canvas.width - width - 2, x + w + int(rng.integers(8, 40)))
    top = y + int(rng.uniform(-0.03, 0.5) * h)
    plane = ramp[:, None].repeat(width, 1)
    paint = cv2.merge([plane] * 3) if name is None else colour_map(rng, name, plane)
    canvas.stamp(np.full_like(plane, 255), left, top, np.asarray(paint, np.uint8))
    if rng.random() < 0.35:
        canvas.draw(
            [Stroke(rectangle(left - 1, top - 1, left + width, top + len(ramp)), 1.0, True)], ui_colour(rng), fineness=1
        )
    return left, top


def focus(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """Focus marks at the depth scale: triangles or hourglasses."""
    x, y, w, h = pane
    at = np.array([x + w + rng.uniform(4, 16) * scale, y + h * rng.uniform(0.1, 0.8)])
    s = rng.uniform(3, 7) * scale
    colour = ui_colour(rng)
    shape = (
        np.array([[-s, 0], [s, -s], [s, s]]) if rng.random() < 0.7 else np.array([[-s, -s], [s, -s], [-s, s], [s, s]])
    )
    for i in range(int(rng.integers(1, 5))):
        canvas.draw([Stroke(shape + at + (0, i * h * 0.09), 0)], colour)


def orientation(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The vendor's sign of the probe's marked side."""
    x, y, w, _ = pane
    at = np.array(
        [
            x + rng.uniform(-0.06, 0.14) * w if rng.random() < 0.8 else x + w * rng.uniform(0.85, 1.0),
            y + rng.uniform(-12, 8) * scale,
        ]
    )
    s = rng.uniform(4, 11) * scale
    colour = ui_colour(rng)
    name = pick(rng, ("ring", "triangle", "m", "dot", "box", "bracket"))
    if name == "ring":
        strokes = [Stroke(arc(at[0], at[1], s, s), 1.5, True), Stroke(line(at[0] - s, at[1], at[0] + s, at[1]), 1.5)]
    elif name == "triangle":
        strokes = [Stroke(np.array([[-s, -s], [s, -s], [0, s]]) + at, 0 if rng.random() < 0.6 else 1.2, True)]
    elif name == "m":
        strokes = [
            Stroke(np.array([[-s, s], [-s, -s], [0, -s], [0, s], [0, -s], [s, -s], [s, s]]) + at, max(1.5, s / 4))
        ]
    elif name == "dot":
        strokes = [Stroke(arc(at[0], at[1], s * 0.6, s * 0.6, steps=16), 0)]
    elif name == "box":
        strokes = [
            Stroke(rectangle(-s, -s, s, s) + at, 1.2, True),
            Stroke(arc(at[0], at[1], s * 0.5, s * 0.5, steps=16), 1.2, True),
        ]
    else:
        strokes = [Stroke(np.array([[s, -s], [-s, -s], [-s, s], [s, s]]) * 0.8 + at, 1.5)]
    canvas.draw(strokes, colour)


def logo(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """A vendor's emblem near the top: a ring, a slanted block, a shield."""
    at = np.array([canvas.width * rng.uniform(0.02, 0.98), rng.uniform(8, 20) * scale])
    s = rng.uniform(6, 14) * scale
    colour = ui_colour(rng)
    emblem = pick(rng, ("ring", "block", "shield", "wave", "disc"))
    if emblem in ("ring", "disc"):
        strokes = [Stroke(arc(at[0], at[1], s * rng.uniform(0.8, 1.8), s), 1.5 if emblem == "ring" else 0, True)]
    elif emblem == "block":
        strokes = [Stroke(np.array([[-s, s], [-s * 0.4, -s], [s, -s], [s * 0.4, s]]) + at, 0)]
    elif emblem == "shield":
        strokes = [
            Stroke(np.array([[-s, -s], [s, -s], [s * 0.9, s * 0.3], [0, s], [-s * 0.9, s * 0.3]]) + at, 1.5, True)
        ]
    else:
        strokes = [
            Stroke(smooth(np.stack([np.linspace(-s, s, 5), rng.uniform(-s, s, 5) * 0.6], 1) + at + (0, k * 3)), 1.5)
            for k in (-1, 1)
        ]
    if emblem in ("ring", "shield"):
        inner = rng.uniform(-0.5, 0.5, (int(rng.integers(3, 7)), 2)) * s + at
        strokes.append(Stroke(smooth(inner), max(1.2, s * 0.15)))
    canvas.draw(strokes, colour)
    if emblem in ("disc", "block"):
        canvas.draw([Stroke(smooth(rng.uniform(-0.6, 0.6, (4, 2)) * s + at), max(1.2, s * 0.18))], (0, 0, 0))
    if rng.random() < 0.5:
        layout.letters.append(
            Lettering(
                at[0] + s * 2,
                at[1] - s * 0.5,
                s * 1.2,
                pick(
                    rng,
                    (
                        "LOGIQ E9",
                        "LOGIQ",
                        "Voluson E8",
                        "iU22",
                        "EPIQ 7",
                        "ACUSON",
                        "DC-8",
                        "RS80A",
                        "Aplio 500",
                        "HS60",
                        "MyLab",
                        "TE7",
                    ),
                ),
            )
        )


def ecg(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    x, y, w, h = pane
    t = np.arange(0, w * rng.uniform(0.4, 1.0), 2.0)
    phase = (t % (period := w / rng.uniform(2, 7))) / period
    beat = (
        np.exp(-(((phase - 0.3) / 0.015) ** 2))
        - 0.25 * np.exp(-(((phase - 0.34) / 0.02) ** 2))
        + 0.2 * np.exp(-(((phase - 0.6) / 0.05) ** 2))
    )
    level = y + h * rng.uniform(0.85, 1.05) - beat * h * rng.uniform(0.04, 0.1)
    canvas.draw(
        [Stroke(np.stack([x + t, level], 1), rng.uniform(1, 2))], shaded(rng, pick(rng, GREENS + YELLOWS + CYANS))
    )
    if rng.random() < 0.5:
        layout.letters.append(
            Lettering(x + w * 0.9, y + h * 1.02, 12 * scale, f"{int(rng.integers(45, 150))} bpm", True)
        )


def spectrum(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """A spectral Doppler strip with its base line and time ticks."""
    x, y, w, h = pane
    height = int(h * rng.uniform(0.22, 0.45))
    top = min(y + h - height // 3, canvas.height - height)
    t = np.arange(w)
    phase = (t % (period := w / rng.uniform(3, 8))) / period
    sharp, floor = rng.uniform(1.5, 5), rng.uniform(0.02, 0.3)
    envelope = (np.minimum(phase * 12, 1) * np.exp(-phase * sharp) * 0.8 + floor) * height * 0.55
    base = height * rng.uniform(0.45, 0.8)
    row = np.arange(height)[:, None]
    rise = base - row if rng.random() < 0.8 else row - base
    lit = (rise > 0) & (rise < envelope)
    if rng.random() < 0.5:
        lit &= rise > envelope * rng.uniform(0.2, 0.7)
    grain = np.abs(noise(rng, w, height, 2.0))
    grey = np.clip(np.where(lit, rng.uniform(50, 110) + 70 * grain, rng.uniform(2, 25) * grain), 0, 255).astype(
        np.uint8
    )
    tint = np.array(pick(rng, ((1, 1, 1), (1, 1, 1), (1, 0.8, 0.6), (0.9, 0.6, 0.9), (1, 0.9, 0.6), (0.6, 0.8, 1))))
    canvas.stamp(np.full_like(grey, 255), x, top, (cv2.merge([grey] * 3) * tint).astype(np.uint8))
    colour = ui_colour(rng)
    canvas.draw([Stroke(line(x, top + base, x + w, top + base), 1.0)], colour, fineness=1)
    gap = w / rng.uniform(4, 30)
    canvas.draw(
        [Stroke(line(x + i * gap, top + height - 4, x + i * gap, top + height), 1.0) for i in range(int(w / gap) + 1)],
        colour,
        fineness=1,
    )
    if rng.random() < 0.6:
        size = 11 * scale
        for share in (0.1, 0.35, 0.9):
            layout.letters.append(
                Lettering(
                    x + w + 4,
                    top + height * share,
                    size,
                    f"{int(rng.integers(-9, 13)) * 10}{pick(rng, ('', '', ' cm/s'))}",
                )
            )


def motion(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """An M-mode strip: one beam over time, in wavy layers."""
    x, y, w, h = pane
    height = int(h * rng.uniform(0.25, 0.45))
    top = min(y + h - height // 3, canvas.height - height)
    layers = np.clip(60 + 70 * noise(rng, 1, height + 40, rng.uniform(4, 12))[:, 0], 0, 255)
    beat = np.sin(np.arange(w) / w * rng.uniform(15, 60)) * rng.uniform(0, 12)
    rows = np.clip(np.arange(height)[:, None] + 20 + beat[None] * np.linspace(0.2, 1, height)[:, None], 0, height + 39)
    grey = np.clip(layers[rows.astype(int)] + 14 * noise(rng, w, height, 2), 0, 255).astype(np.uint8)
    canvas.stamp(np.full_like(grey, 255), x, top, np.asarray(cv2.merge([grey] * 3), np.uint8))
    gap = w / rng.uniform(4, 12)
    marks = [Stroke(line(x + i * gap, top + height - 5, x + i * gap, top + height), 1.0) for i in range(int(w / gap))]
    canvas.draw(marks, ui_colour(rng), fineness=1)


def badges(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """Small coloured signs of the user interface: a heart, a lamp, a battery, a tab."""
    for _ in range(int(rng.integers(1, 5))):
        hue = int(rng.integers(180))
        colour = tuple(int(c) for c in cv2.cvtColor(np.array([[[hue, 220, 230]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0])
        s = rng.uniform(3, 9) * scale
        at = np.array([rng.random() * canvas.width, s + rng.random() * pane[1]])
        if rng.random() < 0.4:
            at = np.array([pick(rng, (pane[0] * rng.random(), canvas.width - s)), rng.random() * canvas.height])
        shape = pick(
            rng,
            (
                rectangle(-s, -s * 0.6, s, s * 0.6),
                arc(0, 0, s, s, steps=20),
                smooth(
                    [(0, -s * 0.4), (s * 0.5, -s * 0.8), (s, -s * 0.2), (0, s), (-s, -s * 0.2), (-s * 0.5, -s * 0.8)],
                    closed=True,
                ),
            ),
        )
        canvas.draw([Stroke(shape + at, 0)], (colour[0], colour[1], colour[2]))


def strip(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The shaded ground of a banner, with a rule below it."""
    height = int(max(10, pane[1] * rng.uniform(0.4, 0.9)))
    shade = np.array(pick(rng, ((60, 62, 66), (30, 34, 40), (20, 40, 70), (80, 80, 80), (40, 40, 44))), np.float32)
    ramp = np.linspace(rng.uniform(0.6, 1.2), rng.uniform(0.4, 1.0), height)[:, None, None]
    band = np.clip(ramp * shade, 0, 255).astype(np.uint8).repeat(canvas.width, 1)
    canvas.stamp(np.full(band.shape[:2], 255, np.uint8), 0, 0, band)
    canvas.draw([Stroke(line(0, height, canvas.width, height), 1.0)], ui_colour(rng), fineness=1, alpha=0.6)


def sidebar(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """Buttons and sliders of a touch screen, or thumbnails, in the right margin."""
    x, y, w, h = pane
    left, room = x + w + int(rng.uniform(20, 36) * scale), canvas.width - x - w
    size = min(room * 0.4, 26 * scale)
    if size < 8:
        return
    colour: Colour = shaded(rng, pick(rng, ((90, 90, 95), (60, 70, 90), (120, 120, 120))))
    top = y + h * rng.uniform(0, 0.3)
    for i in range(int(rng.integers(1, 6))):
        at = top + i * size * 1.5
        canvas.draw(
            [Stroke(rectangle(left, at, left + size, at + size), 0 if rng.random() < 0.4 else 1.2, True)], colour
        )
    if rng.random() < 0.5:
        canvas.draw(
            [
                Stroke(line(left, top, left, top + h * 0.5), 1.2),
                Stroke(arc(left, top + h * rng.uniform(0.1, 0.4), 4 * scale, 4 * scale), 1.5, True),
            ],
            colour,
        )


def cine_bar(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The progress bar of a cine loop."""
    x, y, w, h = pane
    left, right = x + w * rng.uniform(0, 0.3), x + w * rng.uniform(0.4, 1)
    row = min(y + h + rng.uniform(6, 30) * scale, canvas.height - 4)
    s = 4 * scale
    colour = ui_colour(rng)
    canvas.draw(
        [Stroke(np.array([[left, row - s], [left, row], [right, row], [right, row - s]]), 1.0)], colour, fineness=1
    )
    at = rng.uniform(left, right)
    canvas.draw([Stroke(rectangle(at - 2, row - s, at + 2, row), 0)], colour)
    if rng.random() < 0.5:
        layout.letters.append(
            Lettering(
                right + 5, row - 8 * scale, 10 * scale, f"{int(rng.integers(1, 99))}/{int(rng.integers(99, 300))}"
            )
        )


def gain_curve(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The time gain curve beside the pane."""
    x, y, w, h = pane
    rows = y + h * np.linspace(0.05, 0.95, 8)
    at = min(x + w + 14 * scale, canvas.width - 6.0) if rng.random() < 0.6 else max(x - 12 * scale, 4.0)
    points = np.stack([at + np.cumsum(rng.normal(1, 2, 8)) * scale, rows], 1)
    canvas.draw([Stroke(points, 1.0)], ui_colour(rng), alpha=0.8)


def redaction(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """A blank tile where somebody removed a name."""
    w, h = rng.uniform(0.08, 0.3) * canvas.width, rng.uniform(0.02, 0.08) * canvas.height
    x, y = (
        rng.uniform(0, 1) * (canvas.width - w),
        pick(rng, (0.0, canvas.height - h, rng.uniform(0, 1) * (canvas.height - h))),
    )
    grey = int(pick(rng, (0, 0, 0, 255, 128)))
    canvas.draw([Stroke(rectangle(x, y, x + w, y + h), 0)], (grey, grey, grey), fineness=1)


Piece = Callable[[Canvas, np.random.Generator, Layout, Pane, float], None]
PIECES: dict[Piece, float] = {
    strip: 0.2,
    ticks: 0.8,
    rulers: 0.2,
    grey_bar: 0.6,
    colour_bar: 0.28,
    focus: 0.5,
    orientation: 0.55,
    logo: 0.3,
    ecg: 0.14,
    spectrum: 0.12,
    motion: 0.04,
    badges: 0.15,
    sidebar: 0.15,
    cine_bar: 0.12,
    redaction: 0.05,
    gain_curve: 0.08,
}


def furnish(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """Put each piece in its place, or leave it out."""
    for piece, chance in PIECES.items():
        if rng.random() < chance:
            piece(canvas, rng, layout, pane, scale)
