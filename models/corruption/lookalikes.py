"""What a scanner or the tissue shows that is none of the marks, and looks like one: all of it belongs to the clean frame."""

from __future__ import annotations

import cv2
import numpy as np

from models.corruption.strokes import Canvas, Colour, Image, Stroke, arc, line, noise, rectangle, turned
from models.corruption.styles import CYANS, GREENS, GREYS, WHITES, YELLOWS, pick, shaded

Box = tuple[int, int, int, int]


def fan(tissue: Image, rng: np.random.Generator, surround: Colour) -> Image:
    """Mask some tissue to the fan of a curved or phased probe, or the slant of a steered linear one."""
    height, width = tissue.shape[:2]
    if rng.random() < 0.6:
        return tissue
    half = np.radians(rng.uniform(25, 42))
    radius = rng.uniform(0.0, 0.35) * height
    apex = (width / 2, -radius * np.cos(half) * rng.uniform(0.9, 1.0))
    reach = height - apex[1]
    middle = 90.0
    outer = arc(*apex, reach, reach, middle - np.degrees(half), middle + np.degrees(half), 40)
    inner = arc(*apex, max(radius, 1), max(radius, 1), middle + np.degrees(half), middle - np.degrees(half), 16)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(np.vstack([outer, inner])).astype(np.int32)], 255)
    shown = np.empty_like(tissue)
    shown[:] = surround
    shown[mask > 0] = tissue[mask > 0]
    return shown


def on_tissue(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    """Needles, bright membranes, specular crosses, grid dots and stray pixels inside the tissue, and tinted grey maps."""
    x, y, w, h = box
    if rng.random() < 0.08:
        tint = np.array(pick(rng, ((1.0, 0.85, 0.6), (0.75, 0.9, 1.0), (1.0, 0.9, 0.75), (0.85, 0.8, 1.0), (0.8, 1.0, 0.85))))
        part = canvas.image[y:y + h, x:x + w]
        canvas.image[y:y + h, x:x + w] = (part * tint).astype(np.uint8)
    if rng.random() < 0.06:
        _needle(canvas, rng, box)
    if rng.random() < 0.08:
        _membrane(canvas, rng, box)
    if rng.random() < 0.08:
        _specular(canvas, rng, box)
    if rng.random() < 0.04:
        _grid(canvas, rng, box)
    if rng.random() < 0.08:
        for _ in range(int(rng.integers(1, 20))):
            canvas.image[y + int(rng.integers(h)), x + int(rng.integers(w))] = int(rng.integers(180, 256))


def _needle(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    x, y, w, h = box
    left = rng.random() < 0.5
    start = (x, y + h * rng.uniform(0.05, 0.4)) if left else (x + w, y + h * rng.uniform(0.05, 0.4))
    angle = np.radians(rng.uniform(5, 45))
    length = w * rng.uniform(0.3, 0.7)
    end = (start[0] + (length if left else -length) * np.cos(angle), start[1] + length * np.sin(angle))
    grey = int(rng.integers(150, 240))
    for echo in range(int(rng.integers(1, 4))):
        path = line(*start, *end) + (0, echo * rng.uniform(4, 9))
        canvas.draw([Stroke(path, rng.uniform(1.0, 3.0))], (grey, grey, grey), alpha=0.85 / (1 + echo))


def _membrane(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    x, y, w, h = box
    t = np.linspace(0, 1, 30)
    level = y + h * rng.uniform(0.1, 0.8) + np.sin(t * rng.uniform(1, 4) + rng.uniform(0, 6)) * h * rng.uniform(0.0, 0.05)
    span = x + w * (rng.uniform(0, 0.4) + t * rng.uniform(0.3, 0.6))
    canvas.draw([Stroke(np.stack([span, level], 1), rng.uniform(1, 3.5))], (235, 235, 235), alpha=rng.uniform(0.4, 0.9))


def _specular(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    x, y, w, h = box
    for _ in range(int(rng.integers(1, 5))):
        at = (x + w * rng.random(), y + h * rng.random())
        long, thin = rng.uniform(3, 9), rng.uniform(1, 2.5)
        blob = [Stroke(turned(line(at[0] - long, at[1], at[0] + long, at[1]), rng.normal(0, 15), *at), thin)]
        if rng.random() < 0.4:
            blob.append(Stroke(line(at[0], at[1] - long * 0.5, at[0], at[1] + long), thin * 1.5))
        canvas.draw(blob, (230, 230, 230), alpha=rng.uniform(0.4, 0.8))


def _grid(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    x, y, w, h = box
    step = max(12, int(min(w, h) / rng.uniform(6, 14)))
    if rng.random() < 0.5:
        columns = [x + w // 2]
    else:
        columns = list(range(x + step, x + w, step))
    for column in columns:
        for row in range(y + step, y + h, step):
            if 0 <= row < canvas.height and 0 <= column < canvas.width:
                canvas.image[row, column] = 220


def around(canvas: Canvas, rng: np.random.Generator, box: Box, scale: float) -> None:
    """Depth ticks, focus mark, grey bar, colour bar, ECG, spectral strip, logo and orientation glyph round the tissue."""
    if rng.random() < 0.8:
        _ticks(canvas, rng, box, scale)
    if rng.random() < 0.6:
        _grey_bar(canvas, rng, box)
    if rng.random() < 0.3:
        _colour_bar(canvas, rng, box)
    if rng.random() < 0.6:
        _focus(canvas, rng, box, scale)
    if rng.random() < 0.5:
        _orientation(canvas, rng, box, scale)
    if rng.random() < 0.2:
        _ecg(canvas, rng, box)
    if rng.random() < 0.15:
        _spectrum(canvas, rng, box)


def ui_colour(rng: np.random.Generator) -> Colour:
    return shaded(rng, pick(rng, pick(rng, (WHITES, GREYS, YELLOWS, CYANS, GREENS), (0.45, 0.25, 0.14, 0.08, 0.08))))


def _ticks(canvas: Canvas, rng: np.random.Generator, box: Box, scale: float) -> None:
    x, y, w, h = box
    at = x + w + rng.uniform(1, 14) * scale if rng.random() < 0.7 else x - rng.uniform(4, 14) * scale
    step = h / rng.uniform(3, 9)
    minor = int(pick(rng, (1, 2, 5, 10)))
    colour = ui_colour(rng)
    strokes = []
    for i in range(int(h / step * minor) + 1):
        length = (7 if i % minor == 0 else 3) * scale
        row = y + i * step / minor
        strokes.append(Stroke(line(at, row, at + length, row), 1.0))
    canvas.draw(strokes, colour, fineness=1)


def _grey_bar(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    x, y, w, h = box
    width, height = int(rng.integers(6, 20)), int(h * rng.uniform(0.15, 0.6))
    ramp = np.linspace(255, 0, height).astype(np.uint8)[:, None].repeat(width, 1)
    left = max(2, x - width - int(rng.integers(2, 30))) if rng.random() < 0.6 else min(canvas.width - width - 2, x + w + int(rng.integers(10, 40)))
    canvas.stamp(np.full_like(ramp, 255), left, y + int(rng.uniform(0, 0.3) * h), cv2.merge([ramp] * 3))


def _colour_bar(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    from models.corruption.color_boxes import MAPS, colour_map

    x, y, w, h = box
    width, height = int(rng.integers(8, 22)), int(h * rng.uniform(0.12, 0.4))
    velocity = np.linspace(255, 0, height).astype(np.uint8)[:, None].repeat(width, 1)
    left = max(2, x - width - int(rng.integers(2, 30))) if rng.random() < 0.5 else min(canvas.width - width - 2, x + w + int(rng.integers(10, 40)))
    top = y + int(rng.uniform(0, 0.5) * h)
    canvas.stamp(np.full_like(velocity, 255), left, top, colour_map(rng, pick(rng, MAPS), velocity))
    if rng.random() < 0.4:
        canvas.draw([Stroke(rectangle(left - 1, top - 1, left + width, top + height), 1.0, True)], ui_colour(rng), fineness=1)


def _focus(canvas: Canvas, rng: np.random.Generator, box: Box, scale: float) -> None:
    x, y, w, h = box
    at = (x + w + rng.uniform(4, 16) * scale, y + h * rng.uniform(0.1, 0.8))
    s = rng.uniform(3, 7) * scale
    colour = ui_colour(rng)
    for i in range(int(rng.integers(1, 4))):
        down = (0, i * h * 0.12)
        canvas.draw([Stroke(np.array([[-s, 0], [s, -s], [s, s]]) + at + down, 0)], colour)


def _orientation(canvas: Canvas, rng: np.random.Generator, box: Box, scale: float) -> None:
    x, y, w, _ = box
    at = (x + rng.uniform(-0.05, 0.12) * w, y + rng.uniform(-12, 6) * scale)
    s = rng.uniform(5, 11) * scale
    colour = ui_colour(rng)
    if rng.random() < 0.4:
        canvas.draw([Stroke(arc(*at, s, s), 1.5, True), Stroke(line(at[0] - s, at[1], at[0] + s, at[1]), 1.5)], colour)
    elif rng.random() < 0.5:
        canvas.draw([Stroke(np.array([[-s, -s], [s, -s], [0, s]]) + at, 0)], colour)
    else:
        m = np.array([[-s, s], [-s, -s], [0, -s], [0, s], [0, -s], [s, -s], [s, s]]) + at
        canvas.draw([Stroke(m, max(1.5, s / 4))], colour)


def _ecg(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    x, y, w, h = box
    t = np.arange(0, w, 2.0)
    period = w / rng.uniform(2, 7)
    phase = (t % period) / period
    beat = np.exp(-((phase - 0.3) / 0.015) ** 2) - 0.25 * np.exp(-((phase - 0.34) / 0.02) ** 2) + 0.2 * np.exp(-((phase - 0.6) / 0.05) ** 2)
    level = y + h * rng.uniform(0.85, 1.05) - beat * h * rng.uniform(0.04, 0.1)
    canvas.draw([Stroke(np.stack([x + t, level], 1), rng.uniform(1, 2))], shaded(rng, pick(rng, GREENS + YELLOWS + CYANS)))


def _spectrum(canvas: Canvas, rng: np.random.Generator, box: Box) -> None:
    x, y, w, h = box
    height = int(h * rng.uniform(0.2, 0.4))
    top = min(y + h - height // 2, canvas.height - height)
    t = np.arange(w)
    period = w / rng.uniform(3, 8)
    envelope = (np.exp(-((t % period) / period) * rng.uniform(1.5, 5)) * 0.8 + 0.1) * height * 0.6
    row = np.arange(height)[:, None]
    base = height * 0.75
    lit = (row < base) & (row > base - envelope)
    grain = np.abs(noise(rng, w, height, 2.0))
    grey = np.clip(np.where(lit, 60 + 90 * grain, 12 * grain), 0, 255).astype(np.uint8)
    tint = np.array(pick(rng, ((1, 1, 1), (1, 0.8, 0.6), (0.9, 0.6, 0.9), (1, 0.9, 0.6))))
    canvas.stamp(np.full_like(grey, 255), x, top, (cv2.merge([grey] * 3) * tint).astype(np.uint8))
    canvas.draw([Stroke(line(x, top + base, x + w, top + base), 1.0)], ui_colour(rng), fineness=1)
