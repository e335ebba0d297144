"""What a scanner draws round the tissue besides letters: ticks, bars, traces, strips, logos, buttons; never a mark."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.corruption.doppler import ANY_MAP, MAPS, any_stops, colour_map, stops_of
from models.corruption.layouts import Layout, Lettering, Pane
from models.corruption.strokes import Canvas, Colour, Image, Stroke, arc, line, rectangle, smooth, turned
from models.corruption.styles import pick, shaded, split, ui_colour
from models.corruption.traces import ecg, motion, spectrum, tinted


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
    if rng.random() < 0.2:
        strokes.append(Stroke(line(at, y, at, y + h), 1.0))
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
    # No map that is kept for testing: shown in bars alone, it would be learned as never being flow.
    stops = any_stops(rng) if rng.random() < ANY_MAP else stops_of(pick(rng, split(MAPS, held_out=False)))
    left, top = _bar(canvas, rng, pane, np.linspace(255, 0, height).astype(np.uint8), stops)
    if rng.random() < 0.6:
        speed = f"{rng.uniform(2, 90):.1f}" if rng.random() < 0.6 else f"{int(rng.integers(3, 99))}"
        size = rng.uniform(8, 12) * scale
        unit = pick(rng, ("", "", "cm/s"))
        layout.letters += [
            Lettering(left - 3, top - size * 1.2, size, f"{pick(rng, ('+', ''))}{speed}{unit}"),
            Lettering(left - 3, top + height + 2, size, f"-{speed}{unit}"),
        ]


def _bar(
    canvas: Canvas, rng: np.random.Generator, pane: Pane, ramp: Image, stops: tuple[Colour, ...] | None
) -> tuple[int, int]:
    x, y, w, h = pane
    width = int(rng.integers(5, 22))
    if rng.random() < 0.5:
        left = max(2, x - width - int(rng.integers(2, 30)))
    else:
        left = min(canvas.width - width - 2, x + w + int(rng.integers(8, 40)))
    top = y + int(rng.uniform(-0.03, 0.5) * h)
    plane = ramp[:, None].repeat(width, 1)
    paint = tinted(rng, plane) if stops is None else colour_map(rng, stops, plane)
    canvas.stamp(np.full_like(plane, 255), left, top, paint)
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
    name = pick(rng, ("ring", "triangle", "m", "dot", "box", "bracket", "ringed letter"))
    if name == "ringed letter":
        if rng.random() < 0.6:
            at[0] = x + w * rng.uniform(0.3, 0.7)
        letter = pick(rng, (((-1, -1), (0, 1), (1, -1)), ((-1, 1), (0, -1), (1, 1)), ((-1, -1), (-1, 1), (1, 1))))
        strokes = [Stroke(arc(at[0], at[1], s, s), 1.5 if rng.random() < 0.6 else 2.5, True)]
        strokes.append(Stroke(np.array(letter) * s * 0.5 + at, max(1.2, s / 5)))
    elif name == "ring":
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


def plane_sign(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The sign of a transducer's frequency or plane: a small triangle, dial or wheel between letters."""
    s = rng.uniform(7, 16) * scale
    x = rng.uniform(2 * s, max(pane[0] + s, 3 * s)) if rng.random() < 0.7 else canvas.width - 3 * s
    at = np.array([x, rng.uniform(0.1, 0.9) * canvas.height])
    colour = ui_colour(rng)
    if rng.random() < 0.5:
        strokes = [Stroke(np.array([[-s, s * 0.7], [0, -s], [s, s * 0.7]]) + at, 1.2, True)]
        strokes += [
            Stroke(line(0, -s, share * s, s * 0.7) + at, 1.0) for share in (0.0, 0.4)[: int(rng.integers(0, 3))]
        ]
        if rng.random() < 0.5:
            strokes.append(Stroke(arc(at[0] - s * 1.6, at[1], s * 0.5, s * 0.5), 1.2, True))
    else:
        angle = float(rng.uniform(0, 180))
        start, turn = (180.0, 180.0) if rng.random() < 0.6 else (0.0, 360.0)
        strokes = [Stroke(arc(at[0], at[1], s, s, start, start + turn), 1.2)]
        strokes.append(Stroke(turned(line(at[0] - s, at[1], at[0], at[1]), angle, at[0], at[1]), 1.2))
    canvas.draw(strokes, colour)
    if rng.random() < 0.6:
        names = pick(rng, (("P", "R", "G"), ("0", "180", "66"), ("V", "", "")))
        for name, dx, dy in zip(names, (-2.2, 1.3, -0.3), (-0.4, -0.4, -1.9), strict=True):
            if name:
                layout.letters.append(Lettering(at[0] + dx * s, at[1] + dy * s, s * 0.9, name))


def bracket(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The extent of a focal zone or of a magnified part: an I-shaped bar outside of the tissue, or beside it."""
    x, y, w, h = pane
    at = np.array([x + w + rng.uniform(3, 14) * scale, y + h * rng.uniform(0.2, 0.8)])
    if rng.random() < 0.3:
        at = np.array([x + w * rng.uniform(0.7, 0.95), y + h * rng.uniform(0.05, 0.4)])
    half, cap = rng.uniform(12, 50) * scale, rng.uniform(2, 5) * scale
    angle = 0.0 if rng.random() < 0.7 else float(rng.uniform(-60, 60))
    bars = [line(0, -half, 0, half), line(-cap, -half, cap, -half), line(-cap, half, cap, half)]
    strokes = [Stroke(turned(bar, angle) + at, rng.uniform(1, 2)) for bar in bars]
    if rng.random() < 0.4:
        strokes.append(Stroke(arc(at[0], at[1], cap, cap, steps=14), 0))
    canvas.draw(strokes, ui_colour(rng))


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
        # A slider and its knob.
        radius, ink = rng.uniform(3, 8) * scale, colour if rng.random() < 0.5 else ui_colour(rng)
        canvas.draw([Stroke(line(left, top, left, top + h * 0.5), 1.2)], colour)
        canvas.draw([Stroke(arc(left, top + h * rng.uniform(0.1, 0.4), radius, radius), 1.5, True)], ink)


def button_row(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """A row of soft keys or a status bar along the bottom or under the banner."""
    height = float(rng.uniform(10, 22) * scale)
    top = canvas.height - height - rng.uniform(0, 12) * scale if rng.random() < 0.7 else rng.uniform(0, 1) * pane[1]
    shade = pick(rng, ((40, 60, 110), (60, 60, 64), (30, 34, 40), (90, 95, 100), (50, 70, 60)))
    left, right = canvas.width * rng.uniform(0, 0.3), canvas.width * rng.uniform(0.6, 1.0)
    keys = int(rng.integers(1, 8))
    for i in range(keys):
        x0, x1 = left + (right - left) * i / keys, left + (right - left) * (i + rng.uniform(0.85, 1.0)) / keys
        canvas.draw([Stroke(rectangle(x0, top, x1, top + height), 0)], shaded(rng, shade), fineness=1)
        if rng.random() < 0.5:
            layout.letters.append(Lettering(x0 + 4, top + height * 0.2, height * 0.6, "parameter"))


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


def transfer_curve(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """The curve of the grey map or of compression, in a frame that is open on a side."""
    x, _, w, _ = pane
    side = rng.uniform(10, 45) * scale
    width, height = side * rng.uniform(0.8, 3), side
    left = x + w + rng.uniform(2, 40) * scale if rng.random() < 0.6 else rng.uniform(0, 0.9) * canvas.width
    top = rng.uniform(0.02, 0.9) * canvas.height
    right, bottom = left + width, top + height
    frame = np.array([[left, top], [left, bottom], [right, bottom], [right, top]])
    colour = ui_colour(rng)
    lip = rng.uniform(0, 6) * scale
    if rng.random() < 0.4:
        frame = np.vstack([[left + lip, top], frame, [right - lip, top]])
    t = np.linspace(0, 1, 8)
    rise = t ** float(np.exp(rng.normal(0, 0.8))) * rng.uniform(0.2, 1.0)
    curve = np.stack(
        [left + 2 + t * (width - 4), bottom - rise * (height - 2) if rng.random() < 0.6 else top + rise * height], 1
    )
    strokes = [Stroke(frame if rng.random() < 0.7 else frame[:3], rng.uniform(1, 2)), Stroke(curve, rng.uniform(1, 2))]
    canvas.draw(strokes, colour, fineness=int(pick(rng, (1, 4))))


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
    colour_bar: 0.33,
    focus: 0.5,
    orientation: 0.55,
    logo: 0.3,
    ecg: 0.22,
    spectrum: 0.18,
    motion: 0.04,
    badges: 0.15,
    plane_sign: 0.12,
    bracket: 0.08,
    sidebar: 0.15,
    cine_bar: 0.12,
    button_row: 0.12,
    redaction: 0.05,
    gain_curve: 0.08,
    transfer_curve: 0.1,
}


# A screen whose lower half is free shows what the heart or the blood does over time.
_UNDER_DUPLEX: dict[Piece, float] = {spectrum: 0.75, ecg: 0.5}


def furnish(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """Put each piece in its place, or leave it out."""
    duplex = is_duplex(canvas, pane)
    for piece, chance in PIECES.items():
        if rng.random() < (_UNDER_DUPLEX.get(piece, chance) if duplex else chance):
            piece(canvas, rng, layout, pane, scale)


def is_duplex(canvas: Canvas, pane: Pane) -> bool:
    """Whether the screen has room under the pane for what happens over time."""
    return canvas.height - pane[1] - pane[3] > 0.3 * canvas.height
