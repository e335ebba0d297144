"""What a scanner shows over time under the tissue: the ECG, a spectral Doppler strip, an M-mode strip; never a mark."""

from __future__ import annotations

import cv2
import numpy as np

from models.corruption.layouts import Layout, Lettering, Pane
from models.corruption.strokes import Canvas, Image, Stroke, line, noise
from models.corruption.styles import CYANS, GREENS, WHITES, YELLOWS, pick, shaded, ui_colour

# Colours of a spectral or grey map from faint to strong.
_MAPS = {
    "grey": ((0, 0, 0), (90, 90, 90), (180, 180, 180), (255, 255, 255)),
    "sepia": ((0, 0, 0), (110, 75, 40), (210, 170, 115), (255, 245, 220)),
    "heat": ((10, 0, 20), (110, 30, 100), (240, 140, 90), (255, 250, 235)),
    "violet": ((0, 0, 10), (70, 40, 110), (170, 130, 200), (250, 240, 255)),
    "blue": ((0, 0, 8), (30, 60, 110), (120, 170, 220), (240, 250, 255)),
    "gold": ((0, 0, 0), (130, 80, 0), (230, 170, 40), (255, 250, 180)),
    "green": ((0, 5, 0), (20, 90, 40), (110, 200, 120), (230, 255, 230)),
}


def tinted(rng: np.random.Generator, grey: Image) -> Image:
    """Colour a grey plane by one of the maps scanners offer for spectra and B-mode; grey in half of the cases."""
    stops = _MAPS["grey" if rng.random() < 0.5 else pick(rng, tuple(_MAPS))]
    at = np.linspace(0, 255, len(stops))
    table = np.stack([np.interp(np.arange(256), at, [stop[c] for stop in stops]) for c in range(3)], axis=1)
    return np.asarray(table.astype(np.uint8)[grey], np.uint8)


def ecg(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """A heart's or a breathing trace: sharp, rounded, upside down, thin or thick."""
    x, y, w, h = pane
    if canvas.height - y - h > 0.25 * canvas.height and rng.random() < 0.6:
        # A duplex screen: the trace runs through the lower part from edge to edge.
        x, w = int(x * rng.uniform(0, 0.6)), int(canvas.width * rng.uniform(0.7, 1.0))
        y, h = y + int(h * rng.uniform(0, 0.4)), int((canvas.height - y - h) * rng.uniform(0.5, 1.5))
    t = np.arange(0, w * rng.uniform(0.3, 1.0), 1.5)
    phase = (t % (period := w / rng.uniform(1.5, 8))) / period
    sharp = rng.uniform(0.008, 0.04)
    beat = (
        np.exp(-(((phase - 0.3) / sharp) ** 2))
        - rng.uniform(0, 0.5) * np.exp(-(((phase - 0.3 - 2 * sharp) / sharp) ** 2))
        + rng.uniform(0, 0.4) * np.exp(-(((phase - 0.6) / 0.05) ** 2))
        + rng.uniform(0, 0.2) * np.exp(-(((phase - 0.12) / 0.03) ** 2))
    )
    shape = rng.random()
    if shape < 0.12:
        beat = np.sin(phase * 2 * np.pi)
    elif shape < 0.4:
        # A pulse or a vein: steep or round humps of any order, no sharp beat among them.
        humps = [
            rng.uniform(-0.5, 1.0) * np.exp(-(((phase - rng.uniform(0.15, 0.85)) / rng.uniform(0.02, 0.14)) ** 2))
            for _ in range(int(rng.integers(2, 6)))
        ]
        beat = np.sum(humps, axis=0)
        beat /= max(float(np.abs(beat).max()), 0.3)
    tall = rng.random() < 0.35  # under a spectrum the trace gets a strip of its own
    height = h * (rng.uniform(0.12, 0.35) if tall else rng.uniform(0.02, 0.12)) * (-1 if rng.random() < 0.2 else 1)
    if rng.random() < 0.3:
        # A sensor loses the heart now and then: flat stretches and single spikes.
        beat *= np.repeat(rng.random(-(-len(t) // 60)) < 0.6, 60)[: len(t)]
    level = y + h * rng.uniform(0.85, 1.08) - beat * height + np.cumsum(rng.normal(0, 0.15, len(t)))
    colour = shaded(rng, pick(rng, GREENS + YELLOWS + CYANS + WHITES))
    path = np.stack([x + t, level], 1)
    canvas.draw([Stroke(path, rng.uniform(1, 2.5))], colour, fineness=int(pick(rng, (1, 4))))
    if rng.random() < 0.3:
        # The present moment: a short bar or a lighter beat.
        at = path[int(rng.integers(len(path)))]
        canvas.draw(
            [Stroke(line(at[0], at[1] - 14 * scale, at[0], at[1] + 6 * scale), rng.uniform(1, 4))], ui_colour(rng)
        )
    if rng.random() < 0.5:
        layout.letters.append(
            Lettering(x + w * 0.9, y + h * 1.02, 12 * scale, f"{int(rng.integers(45, 150))} bpm", True)
        )


def spectrum(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """A spectral Doppler strip with its base line and time ticks."""
    x, y, w, h = pane
    free = canvas.height - y - h
    if free > 0.25 * canvas.height:
        # A duplex screen: the strip has the lower part for itself, often wider than the image.
        height, top = int(free * rng.uniform(0.6, 0.95)), y + h + int(free * 0.04)
        x, w = int(x * rng.uniform(0.2, 1)), int(min(canvas.width - x, w * rng.uniform(1, 1.6)))
    else:
        height = int(h * rng.uniform(0.22, 0.45))
        top = min(y + h - height // 3, canvas.height - height)
    if height < 16 or w < 32:
        return
    t = np.arange(w)
    phase = ((t + rng.uniform(0, w)) % (period := w / rng.uniform(2, 8))) / period
    base = height * rng.uniform(0.3, 0.8)
    row = np.arange(height)[:, None]
    grain = np.abs(noise(rng, w, height, rng.uniform(1.3, 2.5)))
    strength = rng.uniform(2, 25) * grain
    for upward in (True, False):
        if not upward and rng.random() < 0.5:
            continue
        room = (base if upward else height - base) * rng.uniform(0.3, 0.9)
        rise = base - row if upward else row - base
        beat = np.minimum(phase * 12, 1) * np.exp(-phase * rng.uniform(1.5, 5))
        if rng.random() < 0.4:
            beat = np.abs(np.sin(np.pi * phase * pick(rng, (1, 2)))) ** rng.uniform(0.7, 3)
        floor = rng.uniform(0.02, 0.3)
        if rng.random() < 0.35:
            # Flow that stops between beats, or comes this way only then.
            beat, floor = np.maximum(np.sin(2 * np.pi * (phase + rng.random())), 0) ** rng.uniform(0.5, 2), 0.0
        envelope = (beat * 0.8 + floor) * room * (1 + 0.1 * noise(rng, w, 1, 4)[0])
        inside = (rise > 0) & (rise < envelope)
        if rng.random() < 0.5:
            inside &= rise > envelope * rng.uniform(0.2, 0.7)
        strength = np.where(inside, rng.uniform(50, 150) + rng.uniform(50, 100) * grain, strength)
    grey = np.clip(strength, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        grey = np.asarray(cv2.blur(grey, (int(rng.integers(1, 6)), 1)), np.uint8)
    canvas.stamp(np.full_like(grey, 255), x, top, tinted(rng, grey))
    _axes(canvas, rng, (x, top, w, height), base)
    if rng.random() < 0.6:
        unit = pick(rng, ("", "", " cm/s"))
        for share in (0.05, 0.35, 0.9):
            speed = f"{int(rng.integers(-9, 13)) * 10}{unit}"
            layout.letters.append(Lettering(x + w + 4, top + height * share, 11 * scale, speed))


def _axes(canvas: Canvas, rng: np.random.Generator, strip: Pane, base: float) -> None:
    """The base line, and ticks of time and speed."""
    x, top, w, height = strip
    colour = ui_colour(rng)
    gap, rise = w / rng.uniform(4, 30), height / rng.uniform(3, 12)
    strokes = [Stroke(line(x, top + base, x + w, top + base), 1.0)]
    strokes += [
        Stroke(line(x + i * gap, top + height - 4, x + i * gap, top + height), 1.0) for i in range(int(w / gap) + 1)
    ]
    if rng.random() < 0.6:
        strokes += [
            Stroke(line(x + w, top + i * rise, x + w + 5, top + i * rise), 1.0) for i in range(int(height / rise))
        ]
    canvas.draw(strokes, colour, fineness=1)


def motion(canvas: Canvas, rng: np.random.Generator, layout: Layout, pane: Pane, scale: float) -> None:
    """An M-mode strip: one beam over time, in wavy layers."""
    x, y, w, h = pane
    height = int(h * rng.uniform(0.25, 0.45))
    top = min(y + h - height // 3, canvas.height - height)
    layers = np.clip(60 + 70 * noise(rng, 1, height + 40, rng.uniform(4, 12))[:, 0], 0, 255)
    beat = np.sin(np.arange(w) / w * rng.uniform(15, 60)) * rng.uniform(0, 12)
    rows = np.arange(height)[:, None] + 20 + beat[None] * np.linspace(0.2, 1, height)[:, None]
    rows = np.clip(rows, 0, height + 39)
    grey = np.clip(layers[rows.astype(int)] + 14 * noise(rng, w, height, 2), 0, 255).astype(np.uint8)
    canvas.stamp(np.full_like(grey, 255), x, top, tinted(rng, grey))
    gap = w / rng.uniform(4, 12)
    ticks = [Stroke(line(x + i * gap, top + height - 5, x + i * gap, top + height), 1.0) for i in range(int(w / gap))]
    canvas.draw(ticks, ui_colour(rng), fineness=1)
