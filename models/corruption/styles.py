"""What separates a training style from a held-out one, and the pen one sample is drawn with.

A table of styles is split once, by name: what is held out for testing is never drawn in training, and the reverse.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from models.corruption.strokes import FINENESS, Colour

T = TypeVar("T")

WHITES: tuple[Colour, ...] = ((255, 255, 255), (235, 235, 235), (215, 215, 215), (245, 245, 230))
GREYS: tuple[Colour, ...] = ((190, 190, 190), (165, 165, 165), (200, 205, 215))
DIMS: tuple[Colour, ...] = ((120, 120, 120), (95, 98, 104), (75, 75, 75))
YELLOWS: tuple[Colour, ...] = ((255, 255, 0), (240, 230, 60), (225, 215, 90), (255, 220, 0), (200, 190, 70))
CYANS: tuple[Colour, ...] = ((0, 255, 255), (90, 220, 235), (130, 200, 230))
GREENS: tuple[Colour, ...] = ((0, 255, 0), (60, 220, 90), (140, 230, 120))
REDS: tuple[Colour, ...] = ((255, 60, 50), (230, 90, 60))
BLUES: tuple[Colour, ...] = ((90, 140, 255), (120, 170, 240))
# Share of training marks in a colour of any hue, and of what a scanner draws by itself: colour alone tells no kind.
ANY_COLOUR = 0.3
ANY_UI_COLOUR = 0.15
# Colours no training mark has: orange, magenta, mint, lilac, peach.
HELD_OUT_COLOURS: tuple[Colour, ...] = (
    (255, 150, 40),
    (255, 90, 220),
    (150, 255, 200),
    (190, 160, 255),
    (255, 190, 170),
)


def split(names: Sequence[T], held_out: bool, every: int = 5) -> list[T]:
    """Every fifth style is held out for testing; the others are for training."""
    return [name for i, name in enumerate(names) if (i % every == every - 1) == held_out]


def pick(rng: np.random.Generator, choices: Sequence[T], weights: Sequence[float] | None = None) -> T:
    if weights is None:
        return choices[int(rng.integers(len(choices)))]
    share = np.cumsum(weights)
    return choices[int(np.searchsorted(share, rng.random() * share[-1], side="right"))]


def shaded(rng: np.random.Generator, colour: Colour, spread: int = 12) -> Colour:
    r, g, b = (int(np.clip(c + rng.integers(-spread, spread + 1), 0, 255)) for c in colour)
    return r, g, b


# What the held-out lines of calipers (dash-dot, long dashed) and boxes (dotted, dash-dot) measure, in widths.
HELD_OUT_DASHES: tuple[tuple[float, ...], ...] = ((5.0, 2.5, 0.75, 6.75), (9.0, 4.0), (0.7, 2.5), (7.0, 3.0))


@dataclass(frozen=True)
class Pen:
    """How one scanner draws: scale (1 on 620² pixels), line width in pixels, fineness, opacity, dark edge, colour."""

    scale: float
    width: float
    fineness: int
    alpha: float
    edge: bool
    colour: Colour
    held_out: bool
    any_hue: bool = False
    """Whether the colour is of no palette, and everything the pen draws has it."""


def mark_colour(rng: np.random.Generator, held_out: bool) -> Colour:
    if held_out:
        return shaded(rng, pick(rng, HELD_OUT_COLOURS), 8)
    palette = pick(rng, (WHITES, YELLOWS, CYANS, GREENS, GREYS, REDS, BLUES), (0.5, 0.24, 0.08, 0.08, 0.06, 0.02, 0.02))
    return shaded(rng, pick(rng, palette))


def any_colour(rng: np.random.Generator) -> Colour:
    """A bright colour of any hue that is not near those kept for testing: no palette holds every vendor's ink."""
    while True:
        red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 1.0), rng.uniform(0.6, 1.0))
        colour = round(red * 255), round(green * 255), round(blue * 255)
        if all(max(abs(a - b) for a, b in zip(colour, other, strict=True)) > 40 for other in HELD_OUT_COLOURS):
            return colour


def any_dashes(rng: np.random.Generator) -> tuple[float, ...]:
    """Dash, gap, dash, gap … of a line, in its widths: one to three of each, none near the lines kept for testing."""
    while True:
        count = pick(rng, (1, 2, 3), (0.6, 0.3, 0.1))
        dashes = [rng.uniform(0.5, 1.6) if rng.random() < 0.45 else rng.uniform(2, 14) for _ in range(count)]
        gaps = [float(rng.uniform(1.3, 6))] * count if rng.random() < 0.7 else rng.uniform(1.3, 6, count).tolist()
        pattern = tuple(float(length) for pair in zip(dashes, gaps, strict=True) for length in pair)
        if not any(_alike(pattern, kept) for kept in HELD_OUT_DASHES):
            return pattern


def _alike(pattern: tuple[float, ...], kept: tuple[float, ...]) -> bool:
    if len(pattern) != len(kept):
        return False
    return all(abs(np.log(a / b)) < 0.4 for a, b in zip(pattern, kept, strict=True))


def ui_colour(rng: np.random.Generator) -> Colour:
    """The colour of something the scanner draws by itself."""
    if rng.random() < ANY_UI_COLOUR:
        return any_colour(rng)
    palettes = (WHITES, GREYS, YELLOWS, CYANS, GREENS, DIMS)
    return shaded(rng, pick(rng, pick(rng, palettes, (0.42, 0.22, 0.13, 0.08, 0.07, 0.08))))


def scanner_scale(rng: np.random.Generator, width: int, height: int) -> float:
    """Marks grow with the screen, but crops of one screen come in any size."""
    return float(np.clip((width * height) ** 0.5 / 620 * np.exp(rng.normal(0, 0.22)), 0.55, 3.2))


def pen(rng: np.random.Generator, scale: float, held_out: bool, any_colour_share: float = 0.0) -> Pen:
    any_hue = not held_out and any_colour_share > 0 and bool(rng.random() < any_colour_share)
    crisp = rng.random() < 0.4
    width = float(pick(rng, (1.0, 1.3, 1.7, 2.2, 3.0), (0.5, 0.16, 0.16, 0.12, 0.06)) * max(1.0, scale**0.7))
    return Pen(
        scale=scale,
        width=round(width) if crisp else width,
        fineness=1 if crisp else FINENESS,
        alpha=1.0 if rng.random() < 0.7 else float(rng.uniform(0.5, 1.0)),
        edge=bool(rng.random() < 0.25),
        colour=any_colour(rng) if any_hue else mark_colour(rng, held_out),
        held_out=held_out,
        any_hue=any_hue,
    )
