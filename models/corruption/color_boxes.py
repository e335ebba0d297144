"""Colour boxes: the region a colour or power Doppler image covers, with or without flow in it."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from models.corruption.doppler import ANY_MAP, MAPS, any_stops, blood, colour_map, stops_of
from models.corruption.layouts import Fan, Layout, Pane
from models.corruption.strokes import Canvas, Colour, Image, Points, Stroke, dashed, rectangle, turned
from models.corruption.styles import (
    BLUES,
    CYANS,
    GREENS,
    HELD_OUT_COLOURS,
    WHITES,
    YELLOWS,
    Pen,
    any_dashes,
    pick,
    shaded,
    split,
)

SHAPES: tuple[str, ...] = (
    "rectangle",
    "slanted",
    "sector",
    "trapezoid",
    "slanted tall",
    "rectangle wide",
    "sector steered",
)
LINES: tuple[str, ...] = (
    "solid",
    "dashed",
    "solid thin",
    "solid dim",
    "dotted",
    "solid wide",
    "handles",
    "corners",
    "thin",
    "dash-dot",
)

# Dash and gap, in line widths; those of "dashed" vary.
DASHES: dict[str, tuple[float, float]] = {"dotted": (0.7, 2.5), "dash-dot": (7.0, 3.0)}
# Share of training boxes whose dashes no table has.
ANY_DASHES = 0.2


def outline(name: str, rng: np.random.Generator, pane: Pane, fan: Fan | None) -> Points:
    """The corners of one box in a pane; a sector lies along the beams of the pane's fan where it has one."""
    if fan is not None and name.startswith("sector"):
        near, left = rng.uniform(0.02, 0.6), rng.uniform(-0.95, 0.5)
        far, right = near + rng.uniform(0.2, 0.7) * (1 - near), left + rng.uniform(0.25, 1.0) * (0.95 - left)
        return fan.outline(near, far, left, right, steps=24)
    left, top, width, height = pane
    w, h = rng.uniform(0.12, 0.7) * width, rng.uniform(0.12, 0.65) * height
    x, y = left + rng.uniform(0.02, 0.98) * max(width - w, 1), top + rng.uniform(0.02, 0.98) * max(height - h, 1)
    if rng.random() < 0.08:
        x -= w * rng.uniform(0.1, 0.5)
    elif rng.random() < 0.05:
        # A crop through the box: two of its sides run from edge to edge.
        y, h = top - 0.1 * height, 1.2 * height
    elif rng.random() < 0.03:
        # A crop from within the box: the flow is all that is left of it.
        x, y, w, h = left - 4.0, top - 4.0, width + 8.0, height + 8.0
    if name.startswith("rectangle"):
        return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    if name.startswith("slanted"):
        shift = h * np.tan(np.radians(rng.uniform(8, 24))) * (1 if rng.random() < 0.5 else -1)
        return np.array([[x + shift, y], [x + w + shift, y], [x + w, y + h], [x, y + h]])
    # A sector of its own: its apex above the box, its beams steered or straight down.
    above = h * float(rng.uniform(0.3, 2.5))
    reach = above + h
    spread = float(np.degrees(np.arctan2(w / 2, reach)))
    sector = Fan(x + w / 2, y - above, above, reach, spread).outline(steps=2 if name == "trapezoid" else 24)
    steered = name == "sector steered" or rng.random() < 0.4
    return turned(sector, float(rng.uniform(-18, 18)), x + w / 2, y + h / 2) if steered else sector


def line_colour(rng: np.random.Generator, pen: Pen) -> Colour:
    if pen.held_out:
        return shaded(rng, pick(rng, HELD_OUT_COLOURS))
    if pen.any_hue:
        return pen.colour
    olive = ((150, 150, 60), (170, 165, 80), (200, 195, 110), (130, 130, 50))
    return shaded(
        rng,
        pick(
            rng,
            pick(
                rng,
                (olive, WHITES, GREENS, CYANS, BLUES, YELLOWS, ((120, 120, 120),)),
                (0.28, 0.28, 0.14, 0.1, 0.08, 0.08, 0.04),
            ),
        ),
    )


def draw(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, layout: Layout) -> None:
    """One box, and the flow in it where there is some."""
    pane, fan = layout.pick(rng)
    name = pick(rng, split(SHAPES, pen.held_out))
    if fan is not None and not pen.held_out and rng.random() < 0.8:
        name = "sector"
    box = outline(name, rng, pane, fan)
    if pen.fineness == 1 and name.startswith("rectangle"):
        box = np.round(box)
    if rng.random() < 0.6:
        flow(canvas, rng, pen, kind, box)
    style = pick(rng, split(LINES, pen.held_out))
    width = {"solid thin": 1.0, "thin": 1.0, "solid dim": 1.0}.get(style, min(pen.width, 2.2))
    colour = line_colour(rng, pen)
    if not pen.held_out and rng.random() < ANY_DASHES:
        pattern = [length * width for length in any_dashes(rng)]
        strokes = [Stroke(piece, width) for piece in dashed(box, *pattern, closed=True)]
    elif style == "dashed":
        pieces = dashed(box, rng.uniform(3, 8) * width, rng.uniform(2, 6) * width, closed=True)
        strokes = [Stroke(piece, width) for piece in pieces]
    elif style in DASHES:
        on, off = DASHES[style]
        strokes = [Stroke(piece, width) for piece in dashed(box, width * on, width * off, closed=True)]
    else:
        corners = np.vstack([box, box[:1]])
        strokes = [Stroke(corners[i : i + 2], width) for i in range(len(box))]
        if style == "corners" and len(box) == 4:
            strokes = [
                Stroke(p + (q - p) * share, width)
                for p, q in pairwise(corners)
                for share in ([[0.0], [0.18]], [[0.82], [1.0]])
            ]
        elif style == "handles":
            strokes += [
                Stroke(rectangle(px - 2.5, py - 2.5, px + 2.5, py + 2.5), 0) for px, py in box[:: max(1, len(box) // 4)]
            ]
    canvas.draw(strokes, colour, kind, alpha=0.6 if style == "solid dim" else pen.alpha, fineness=pen.fineness)


def flow(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, box: Points) -> None:
    """Coloured blood flow inside the box: specks, vessels or a full lumen."""
    left, top = (int(v) for v in np.floor(box.min(axis=0)))
    right, bottom = (int(v) + 1 for v in np.ceil(box.max(axis=0)))
    w, h = right - left, bottom - top
    if w < 8 or h < 8:
        return
    inside: Image = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [np.round(box - (left, top)).astype(np.int32)], 255)
    coverage, velocity = blood(rng, w, h)
    if rng.random() < 0.5:
        # Colour shows where the grey image is dark: in vessels.
        coverage = _in_the_dark(canvas, coverage, left, top)
    made_up = not pen.held_out and rng.random() < ANY_MAP
    stops = any_stops(rng) if made_up else stops_of(pick(rng, split(MAPS, pen.held_out)))
    paint = colour_map(rng, stops, velocity)
    canvas.stamp(
        np.asarray(cv2.min(coverage, inside), np.uint8), left, top, paint, kind, alpha=float(rng.uniform(0.7, 1.0))
    )


def _in_the_dark(canvas: Canvas, coverage: Image, left: int, top: int) -> Image:
    h, w = coverage.shape
    tissue: Image = np.zeros((h, w), np.uint8)
    x, y = max(left, 0), max(top, 0)
    part = canvas.image[y : top + h, x : left + w, 1]
    tissue[y - top : y - top + part.shape[0], x - left : x - left + part.shape[1]] = part
    smoothed = cv2.resize(cv2.resize(tissue, (max(1, w // 6), max(1, h // 6)), interpolation=cv2.INTER_AREA), (w, h))
    return np.asarray(coverage * (smoothed < np.median(smoothed) + 8), np.uint8)
