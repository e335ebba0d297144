"""Simulated scanner screens: the frame in its place among the things a scanner draws by itself.

All of it but letters belongs to the clean frame. Letters are left out: `letter` writes them, as marks of kind text.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.corruption import fans, furniture, lookalikes
from models.corruption.layouts import Fan, Layout, Lettering
from models.corruption.phrases import banner, parameter
from models.corruption.strokes import Canvas, Colour, Image
from models.corruption.styles import (
    BLUES,
    CYANS,
    GREENS,
    GREYS,
    WHITES,
    YELLOWS,
    mark_colour,
    pick,
    scanner_scale,
    shaded,
    split,
)
from models.corruption.texts import fonts, write

GROUNDS: tuple[Colour, ...] = ((0, 0, 0), (0, 0, 0), (0, 0, 0), (8, 8, 10), (20, 22, 26), (12, 16, 24), (2, 2, 2))


@dataclass(frozen=True)
class Plan:
    """How one kind of screen is laid out: widest margins as shares of it, where parameters stand, how many panes."""

    left: float
    right: float
    top: float
    bottom: float
    columns: tuple[str, ...]
    panes: int = 1
    banner_rows: int = 2


PLANS: dict[str, Plan] = {
    "parameters left": Plan(0.22, 0.12, 0.14, 0.1, ("left",)),
    "parameters right": Plan(0.1, 0.24, 0.12, 0.08, ("right",)),
    "full width": Plan(0.04, 0.08, 0.12, 0.1, ("over left",), banner_rows=1),
    "dual": Plan(0.08, 0.1, 0.14, 0.16, ("below",), panes=2),
    "framed": Plan(0.16, 0.16, 0.16, 0.2, ("left", "below"), banner_rows=3),
    "both sides": Plan(0.2, 0.22, 0.1, 0.12, ("left", "right"), banner_rows=1),
    "small image": Plan(0.28, 0.28, 0.2, 0.25, ("left", "below")),
    "low banner": Plan(0.06, 0.14, 0.03, 0.2, ("below", "over left"), banner_rows=0),
    "over the tissue": Plan(0.02, 0.03, 0.04, 0.03, ("over left", "over right"), banner_rows=1),
    "dual with column": Plan(0.06, 0.2, 0.1, 0.06, ("right",), panes=2, banner_rows=1),
    "duplex": Plan(0.2, 0.2, 0.12, 0.7, ("left",)),
}


def compose(frame: Image, rng: np.random.Generator, on_screen: bool, held_out: bool) -> tuple[Image, Layout]:
    """The clean frame, on a screen or bare, with look-alikes of marks on it; and its layout."""
    height, width = frame.shape[:2]
    if not on_screen or min(width, height) < 64:
        canvas = Canvas(cropped(frame, rng))
        layout = Layout([(0, 0, canvas.width, canvas.height)], [None], held_out)
        lookalikes.on_tissue(canvas, rng, layout, layout.panes[0])
        return canvas.image, layout
    plans = split(tuple(PLANS), held_out)
    plan = PLANS[pick(rng, plans, [1.6 if name == "duplex" else 1.0 for name in plans])]
    ground = pick(rng, GROUNDS)
    left, right, top, bottom = (
        share * rng.uniform(0.15, 1.0) for share in (plan.left, plan.right, plan.top, plan.bottom)
    )
    screen = np.empty((height, round(width * rng.uniform(0.9, 1.15)), 3), np.uint8)
    screen[:] = ground
    canvas = Canvas(screen)
    x, y = round(left * canvas.width), round(top * canvas.height)
    w, h = round((1 - left - right) * canvas.width), round((1 - top - bottom) * canvas.height)
    layout = Layout([], [], held_out)
    for i in range(plan.panes):
        pane_width = w // plan.panes
        source = cropped(frame, rng) if plan.panes == 1 else cropped(frame, rng, 0.6)
        _show(canvas, rng, layout, source, (x + i * pane_width, y, pane_width - (plan.panes > 1) * 2, h), ground)
    scale = scanner_scale(rng, canvas.width, canvas.height)
    for pane in layout.panes:
        lookalikes.on_tissue(canvas, rng, layout, pane, duplex=furniture.is_duplex(canvas, pane))
    furniture.furnish(canvas, rng, layout, layout.panes[-1], scale)
    _reserve(rng, layout, plan, canvas.width, scale)
    return canvas.image, layout


def cropped(frame: Image, rng: np.random.Generator, least: float = 0.65) -> Image:
    """A part of the frame, at times all of it, at times mirrored, as another gain and another probe would show it."""
    height, width = frame.shape[:2]
    if rng.random() < 0.6 and min(height, width) > 100:
        h, w = round(height * rng.uniform(least, 1.0)), round(width * rng.uniform(least, 1.0))
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        frame = frame[y : y + h, x : x + w]
    if rng.random() < 0.5:
        frame = frame[:, ::-1]
    frame = np.ascontiguousarray(frame)
    if rng.random() < 0.5:
        # Marks keep their colours whatever the gain.
        level = np.arange(256) / 255.0
        curve = float(rng.uniform(0.75, 1.3)) * level ** float(np.exp(rng.normal(0, 0.3)))
        frame = np.asarray(cv2.LUT(frame, np.clip(255 * curve + rng.uniform(-8, 8), 0, 255).astype(np.uint8)), np.uint8)
    if rng.random() < 0.25:
        # Tissue is often enlarged from fewer samples than the overlay has pixels.
        frame = np.asarray(cv2.GaussianBlur(frame, (5, 5), float(rng.uniform(0.5, 1.4))), np.uint8)
    return frame


def _show(
    canvas: Canvas,
    rng: np.random.Generator,
    layout: Layout,
    tissue: Image,
    room: tuple[int, int, int, int],
    ground: Colour,
) -> None:
    """Put the tissue into its room, keeping its proportions but for a little."""
    x, y, w, h = room
    height, width = tissue.shape[:2]
    fit = min(w / width, h / height)
    shown_w, shown_h = (
        min(w, round(width * fit * rng.uniform(1.0, 1.25))),
        min(h, round(height * fit * rng.uniform(1.0, 1.25))),
    )
    tissue = np.asarray(cv2.resize(tissue, (max(shown_w, 8), max(shown_h, 8)), interpolation=cv2.INTER_AREA), np.uint8)
    tissue, fan = fans.shaped(tissue, rng, ground)
    shown_h, shown_w = tissue.shape[:2]
    left = min(x + max(0, round((w - shown_w) * rng.uniform(0.2, 0.8))), canvas.width - shown_w)
    top = min(y, canvas.height - shown_h)
    canvas.image[top : top + shown_h, left : left + shown_w] = tissue
    layout.panes.append((left, top, shown_w, shown_h))
    layout.fans.append(None if fan is None else Fan(fan.x + left, fan.y + top, fan.near, fan.reach, fan.half))


def _reserve(rng: np.random.Generator, layout: Layout, plan: Plan, width: int, scale: float) -> None:
    """Find places for the scanner's own letters."""
    size = rng.uniform(9.5, 15) * scale
    step = size * rng.uniform(1.15, 1.5)
    for row in range(plan.banner_rows):
        fields = int(rng.integers(1, 6))
        for i in range(fields):
            last = i == fields - 1 and rng.random() < 0.6
            layout.letters.append(
                Lettering(
                    width - 4 if last else width * (0.01 + i * rng.uniform(0.8, 1.0) / max(fields, 3)),
                    3 + row * step,
                    size,
                    "banner",
                    last,
                )
            )
    x, y, w, h = layout.panes[0]
    x1 = layout.panes[-1][0] + layout.panes[-1][2]
    for column in plan.columns:
        if rng.random() < 0.2:
            continue
        rows = int(rng.integers(2, 15)) if column in ("left", "right") else int(rng.integers(1, 5))
        start = y + h * rng.uniform(0.0, 0.5) if column in ("left", "right") else y + rng.uniform(2, 12) * scale
        if column == "below":
            start = y + h + 4 * scale
        at = {
            "left": 3.0,
            "right": min(x1 + 22 * scale, width - 6 * size),
            "below": x + w * rng.uniform(-0.1, 0.5),
            "over left": x + 4.0,
            "over right": x1 - 4.0,
        }[column]
        aligned = column == "over right" or (column == "right" and rng.random() < 0.3)
        if aligned and column == "right":
            at = width - 4.0
        for row in range(rows):
            if rng.random() < 0.9:
                layout.letters.append(Lettering(at, start + row * step, size, "parameter", aligned))


def _ink(rng: np.random.Generator, held_out: bool) -> Colour:
    if held_out:
        return mark_colour(rng, held_out)
    return shaded(
        rng, pick(rng, pick(rng, (WHITES, GREYS, YELLOWS, CYANS, BLUES, GREENS), (0.45, 0.3, 0.08, 0.07, 0.05, 0.05)))
    )


def letter(canvas: Canvas, rng: np.random.Generator, layout: Layout, kind: int) -> None:
    """Write the scanner's letters, shifted and worded anew each time, so that two renderings do not agree."""
    if not layout.letters or rng.random() < 0.3:
        return
    font = pick(rng, fonts(layout.held_out))
    colours = [_ink(rng, layout.held_out) for _ in range(2)]
    crisp = bool(rng.random() < 0.35)
    shift = rng.uniform(-0.6, 0.6, 2) * layout.letters[0].size
    grow = rng.uniform(0.85, 1.15)
    stretch = float(pick(rng, (0.8, 0.9, 1.0, 1.1)))
    for each in layout.letters:
        if rng.random() < 0.12:
            continue
        text = banner(rng) if each.says == "banner" else parameter(rng) if each.says == "parameter" else each.says
        edge = "tile" if rng.random() < 0.02 else "none"
        colour = colours[0] if rng.random() < 0.85 else colours[1]
        write(
            canvas,
            text,
            each.x + shift[0],
            each.y + shift[1],
            font,
            round(each.size * grow),
            colour,
            kind,
            crisp=crisp,
            edge=edge,
            stretch=stretch,
            right_aligned=each.right_aligned,
        )
