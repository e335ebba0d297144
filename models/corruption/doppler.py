"""The colours of blood flow: where it shows, how fast it runs, and the maps that colour it."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np

from models.corruption.strokes import Colour, Image, noise

_STOPS: dict[str, tuple[Colour, ...]] = {
    "velocity": ((0, 255, 255), (0, 120, 255), (0, 0, 200), (180, 0, 0), (255, 110, 0), (255, 255, 0)),
    "power": ((90, 0, 0), (160, 30, 0), (220, 80, 0), (255, 140, 10), (255, 200, 50), (255, 250, 160)),
    "red-blue": ((120, 160, 255), (60, 80, 255), (0, 0, 160), (150, 0, 0), (255, 50, 50), (255, 150, 150)),
    "velocity dark": ((80, 200, 255), (20, 70, 220), (10, 10, 90), (90, 10, 10), (220, 50, 20), (250, 190, 60)),
    "variance": ((0, 255, 200), (0, 160, 255), (0, 0, 190), (190, 0, 0), (255, 160, 0), (120, 255, 0)),
    "directional power": (
        (150, 220, 255),
        (40, 120, 255),
        (20, 20, 120),
        (120, 40, 20),
        (255, 140, 30),
        (255, 240, 160),
    ),
    "power magenta": ((70, 0, 60), (120, 10, 110), (180, 40, 140), (220, 90, 150), (245, 160, 190), (255, 230, 240)),
    "microflow": ((40, 40, 90), (60, 60, 140), (90, 120, 200), (150, 190, 240), (210, 235, 255), (255, 255, 255)),
    "orange": ((60, 20, 0), (130, 60, 0), (190, 100, 20), (230, 150, 50), (250, 200, 110), (255, 240, 200)),
    "blue-green": ((0, 60, 160), (0, 120, 190), (0, 70, 90), (0, 90, 40), (60, 180, 60), (190, 255, 120)),
}
MAPS: tuple[str, ...] = tuple(_STOPS)
# Share of training boxes whose flow has a map made up on the spot.
ANY_MAP = 0.2


def stops_of(name: str) -> tuple[Colour, ...]:
    """The six colours of a map of the table, from the fastest flow away from the probe to the fastest towards it."""
    return _STOPS[name]


def any_stops(rng: np.random.Generator) -> tuple[Colour, ...]:
    """A map no table has: one hue or two that drift as they brighten, of one direction (power) or of both."""

    def ramp(steps: int) -> list[Colour]:
        hue, drift, saturation = rng.random(), rng.uniform(-0.15, 0.15), rng.uniform(0.5, 1.0)
        levels = np.linspace(rng.uniform(0.15, 0.5), rng.uniform(0.75, 1.0), steps)
        shades = [
            colorsys.hsv_to_rgb((hue + drift * i / steps) % 1, saturation * (1 - 0.4 * i / steps), level)
            for i, level in enumerate(levels)
        ]
        return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in shades]

    return tuple(ramp(6)) if rng.random() < 0.3 else (*reversed(ramp(3)), *ramp(3))


def colour_map(rng: np.random.Generator, stops: tuple[Colour, ...], velocity: Image) -> Image:
    """Colour a velocity image (0-255, 128 = no flow) by a Doppler map's six stops, now and then upside down."""
    at = np.linspace(0, 255, 6)
    table = np.stack([np.interp(np.arange(256), at, [stop[c] for stop in stops]) for c in range(3)], axis=1)
    if rng.random() < 0.3:
        table = table[::-1]
    return np.asarray(table.astype(np.uint8)[velocity], np.uint8)


def blood(rng: np.random.Generator, width: int, height: int) -> tuple[Image, Image]:
    """Coverage and velocity (128 = none) of blood flow: blobs, vessels, a few specks; fastest in the middle of each."""
    # Doppler lines are coarser than the grey image: draw at half size, enlarge.
    coarse = int(rng.integers(1, 4))
    w, h = max(4, width // coarse), max(4, height // coarse)
    size = max(6.0, min(w, h) / rng.uniform(2.5, 10))
    field = noise(rng, w, h, size) + rng.uniform(0.1, 0.4) * noise(rng, w, h, max(2.5, size / 4))
    if rng.random() < 0.45:
        field = 0.6 - np.abs(field) * rng.uniform(1.0, 2.5)
    share = rng.choice([0.002, 0.01, 0.04, 0.12, 0.3, 0.5]) * rng.uniform(0.5, 1.2)
    above = field - np.quantile(field[::3, ::3], 1 - share)
    coverage = np.clip(above * 255 * rng.uniform(2, 12), 0, 255).astype(np.uint8)
    sign = np.tanh(3 * (noise(rng, w, h, max(4.0, size * rng.uniform(1, 4))) + rng.normal(0, 1.2)))
    speed = np.clip(above / max(float(above.max()), 1e-3), 0, 1) ** rng.uniform(0.4, 1.2)
    velocity = np.clip(128 + 127 * sign * (rng.uniform(0.05, 0.3) + speed) + 12 * noise(rng, w, h, 3), 0, 255).astype(
        np.uint8
    )
    if coarse > 1:
        coverage, velocity = (
            np.asarray(enlarged, np.uint8)
            for enlarged in (_enlarged(coverage, width, height), _enlarged(velocity, width, height))
        )
    return coverage, velocity


def _enlarged(plane: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
