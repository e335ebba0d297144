"""Colour boxes: the region a colour or power Doppler image covers, with or without flow in it."""

from __future__ import annotations

import cv2
import numpy as np

from models.corruption.strokes import Canvas, Colour, Image, Points, Stroke, arc, connected_specks, dashed
from models.corruption.styles import BLUES, CYANS, GREENS, HELD_OUT_COLOURS, WHITES, YELLOWS, Pen, pick, shaded, split

SHAPES: tuple[str, ...] = ("rectangle", "slanted", "sector", "trapezoid", "slanted tall", "rectangle wide", "sector steered")
LINES: tuple[str, ...] = ("solid", "dashed", "solid thin", "solid dim", "dotted", "solid wide")
MAPS: tuple[str, ...] = ("velocity", "power", "red-blue", "variance", "directional power")


def outline(name: str, rng: np.random.Generator, width: int, height: int) -> Points:
    """The corners of one box, anywhere in the frame."""
    w, h = rng.uniform(0.12, 0.7) * width, rng.uniform(0.12, 0.65) * height
    x, y = rng.uniform(0.02, 0.98) * max(width - w, 1), rng.uniform(0.02, 0.98) * max(height - h, 1)
    if rng.random() < 0.08:
        x -= w * rng.uniform(0.1, 0.5)
    if name.startswith("rectangle"):
        return np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]])
    if name.startswith("slanted"):
        shift = h * np.tan(np.radians(rng.uniform(8, 24))) * (1 if rng.random() < 0.5 else -1)
        return np.array([[x + shift, y], [x + w + shift, y], [x + w, y + h], [x, y + h]])
    apex = (x + w / 2, y - h * rng.uniform(0.3, 2.5))
    reach = y + h - apex[1]
    near = (y - apex[1]) / reach
    spread = np.degrees(np.arctan2(w / 2, reach))
    tilt = 90 + (rng.uniform(-18, 18) if name == "sector steered" or rng.random() < 0.4 else 0.0)
    if name == "trapezoid":
        far = arc(*apex, reach, reach, tilt - spread, tilt + spread, 2)
        close = arc(*apex, reach * near, reach * near, tilt + spread, tilt - spread, 2)
    else:
        far = arc(*apex, reach, reach, tilt - spread, tilt + spread, 24)
        close = arc(*apex, reach * near, reach * near, tilt + spread, tilt - spread, 24)
    return np.vstack([far, close])


def line_colour(rng: np.random.Generator, pen: Pen) -> Colour:
    if pen.held_out:
        return shaded(rng, pick(rng, HELD_OUT_COLOURS))
    olive = ((150, 150, 60), (170, 165, 80), (200, 195, 110), (130, 130, 50))
    return shaded(rng, pick(rng, pick(rng, (olive, WHITES, GREENS, CYANS, BLUES, YELLOWS, ((120, 120, 120),)), (0.28, 0.28, 0.14, 0.1, 0.08, 0.08, 0.04))))


def draw(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int) -> None:
    """One box, its flow where there is some."""
    name = pick(rng, split(SHAPES, pen.held_out))
    box = outline(name, rng, canvas.width, canvas.height)
    if pen.fineness == 1 and name.startswith("rectangle"):
        box = np.round(box)
    if rng.random() < 0.6:
        flow(canvas, rng, pen, kind, box)
    style = pick(rng, split(LINES, pen.held_out))
    width = {"solid thin": 1.0, "solid dim": 1.0}.get(style, min(pen.width, 2.2))
    colour = line_colour(rng, pen)
    if style == "dashed":
        pieces = dashed(box, rng.uniform(3, 8) * width, rng.uniform(2, 6) * width, closed=True)
        strokes = [Stroke(piece, width) for piece in pieces]
    elif style == "dotted":
        strokes = [Stroke(piece, width) for piece in dashed(box, width * 0.7, width * 2.5, closed=True)]
    else:
        corners = np.vstack([box, box[:1]])
        strokes = [Stroke(corners[i:i + 2], width) for i in range(len(box))]
    canvas.draw(strokes, colour, kind, alpha=0.6 if style == "solid dim" else pen.alpha, fineness=pen.fineness)


def flow(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, box: Points) -> None:
    """Coloured blood flow inside the box: specks, vessels or a full lumen."""
    left, top = np.floor(box.min(axis=0)).astype(int)
    right, bottom = np.ceil(box.max(axis=0)).astype(int) + 1
    w, h = int(right - left), int(bottom - top)
    if w < 8 or h < 8:
        return
    inside: Image = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [np.round(box - (left, top)).astype(np.int32)], 255)
    amount, velocity = connected_specks(rng, w, h)
    coverage = np.minimum(amount, inside)
    canvas.stamp(coverage, int(left), int(top), colour_map(rng, pick(rng, split(MAPS, pen.held_out)), velocity), kind, alpha=float(rng.uniform(0.75, 1.0)))


def colour_map(rng: np.random.Generator, name: str, velocity: Image) -> Image:
    """Colour a velocity image (0-255, 128 = no flow) by a Doppler map."""
    stops: dict[str, tuple[Colour, ...]] = {
        "velocity": ((0, 255, 255), (0, 120, 255), (0, 0, 200), (180, 0, 0), (255, 110, 0), (255, 255, 0)),
        "power": ((90, 0, 0), (160, 30, 0), (220, 80, 0), (255, 140, 10), (255, 200, 50), (255, 250, 160)),
        "red-blue": ((120, 160, 255), (60, 80, 255), (0, 0, 160), (150, 0, 0), (255, 50, 50), (255, 150, 150)),
        "variance": ((0, 255, 200), (0, 160, 255), (0, 0, 190), (190, 0, 0), (255, 160, 0), (120, 255, 0)),
        "directional power": ((150, 220, 255), (40, 120, 255), (20, 20, 120), (120, 40, 20), (255, 140, 30), (255, 240, 160)),
    }
    at = np.linspace(0, 255, 6)
    table = np.stack([np.interp(np.arange(256), at, [stop[c] for stop in stops[name]]) for c in range(3)], axis=1)
    if rng.random() < 0.3:
        table = table[::-1]
    return np.asarray(table.astype(np.uint8)[velocity], np.uint8)
