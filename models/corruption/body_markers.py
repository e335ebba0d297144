"""Body markers: the little outline of the scanned body part, with the probe's place and direction on it."""

from __future__ import annotations

import numpy as np

from models.corruption.body_outlines import OUTLINES, Path, unnamed
from models.corruption.layouts import Layout, Pane
from models.corruption.strokes import Canvas, Colour, Points, Stroke, arc, dashed, line, rasterised, turned
from models.corruption.styles import CYANS, GREENS, REDS, WHITES, YELLOWS, Pen, mark_colour, pick, shaded, split

FAMILIES: tuple[str, ...] = tuple(OUTLINES)
# Departments that mark nearly every image draw these.
COMMON = ("breast", "thyroid", "abdomen", "leg", "neck")
# Share of training markers with an outline made up on the spot: a vendor's next pictogram is in no table either.
UNNAMED = 0.3
PROBES: tuple[str, ...] = (
    "bar",
    "thick L",
    "arrow",
    "bar with dot",
    "double bar",
    "block",
    "dot",
    "rod and tick",
    "none",
    "fan",
)


def draw(
    canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, layout: Layout, family: str | None = None
) -> None:
    """Draw one marker, or one per half of a dual image."""
    families = split(FAMILIES, pen.held_out)
    family = family or pick(rng, families, [2.5 if name.startswith(COMMON) else 1.0 for name in families])
    height = rng.uniform(44, 110) * pen.scale
    if rng.random() < 0.12:
        height *= rng.uniform(1.2, 1.9)
    ground = (0, 0, canvas.width, canvas.height)
    x, y = place(rng, layout.pick(rng)[0] if rng.random() < 0.5 else ground, height)
    tilt = float(rng.normal(0, 3)) if rng.random() < 0.15 else 0.0
    flip = -1.0 if rng.random() < 0.3 else 1.0
    stretch = np.array([flip * rng.uniform(0.8, 1.2), rng.uniform(0.85, 1.15)]) * height
    bend = (
        np.stack([rng.normal(0, 0.04, 2), rng.uniform(2, 9, 2), rng.uniform(0, 6.3, 2)]) if rng.random() < 0.6 else None
    )
    frame = Frame(np.array([x, y]), stretch, tilt, bend)
    made_up = not pen.held_out and rng.random() < UNNAMED
    paths = unnamed(rng) if made_up else _varied(rng, OUTLINES[family])
    _figure(canvas, rng, pen, kind, paths, frame)
    probe(canvas, rng, pen, kind, frame, height)
    if len(layout.panes) > 1 and rng.random() < 0.5:
        # A dual image carries one per half.
        (x0, *_), (x1, *_) = layout.panes[0], layout.panes[-1]
        beside = frame.moved(float(x1 - x0 if frame.centre[0] < x1 else x0 - x1))
        _figure(canvas, rng, pen, kind, paths, beside)
        probe(canvas, rng, pen, kind, beside, height)


def _varied(rng: np.random.Generator, paths: list[Path]) -> list[Path]:
    """The family with a detail less, or one more: no two vendors agree on them."""
    kept = [path for path in paths if len(paths) < 4 or rng.random() < 0.9]
    if rng.random() < 0.12:
        x, y = rng.uniform(-0.25, 0.25, 2)
        size = rng.uniform(0.03, 0.14)
        extra = arc(x, y, size, size, steps=20) if rng.random() < 0.6 else line(x - size, y, x + size, y)
        kept.append(Path(extra, closed=len(extra) > 2))
    return kept


def place(rng: np.random.Generator, pane: Pane, size: float) -> tuple[float, float]:
    """Corners and margins mostly, anywhere at times, and cut off by the edge of the image now and then."""
    x, y = _place(rng, pane[2], pane[3], size)
    return pane[0] + x, pane[1] + y


def _place(rng: np.random.Generator, width: int, height: int, size: float) -> tuple[float, float]:
    kind = pick(rng, ("corner", "margin", "anywhere", "cut"), (0.5, 0.15, 0.17, 0.18))
    reach = size * 0.55
    near = rng.uniform(0, 0.12, 2) * (width, height) + reach
    left, bottom = rng.random() < 0.45, rng.random() < 0.8
    if kind == "corner":
        return float(near[0] if left else width - near[0]), float(height - near[1] if bottom else near[1])
    if kind == "margin":
        return float(rng.uniform(reach, max(width - reach, reach + 1))), float(height - near[1] if bottom else near[1])
    if kind == "anywhere":
        return float(rng.uniform(0, width)), float(rng.uniform(0, height))
    beyond = rng.uniform(-0.35, 0.46) * size
    if rng.random() < 0.6:
        return float(rng.uniform(0.05, 0.95) * width), float(height + beyond if bottom else -beyond)
    return float(beyond if left else width - beyond), float(rng.uniform(0.3, 0.95) * height)


class Frame:
    """Where a unit outline comes to stand."""

    def __init__(self, centre: Points, stretch: Points, tilt: float, bend: Points | None = None) -> None:
        self.centre, self.stretch, self.tilt = centre, stretch, tilt
        self.bend = np.zeros((3, 2)) if bend is None else bend

    def __call__(self, points: Points) -> Points:
        # Vendors draw the same organ with other proportions: sway each axis along the other, by amplitude, rate, phase.
        amplitude, rate, phase = self.bend
        swayed = points + amplitude * np.sin(points[:, ::-1] * rate + phase)
        return turned(swayed * self.stretch, self.tilt) + self.centre

    def moved(self, right: float) -> Frame:
        """The same frame, further right by that many pixels."""
        return Frame(self.centre + np.array([right, 0.0]), self.stretch, self.tilt, self.bend)


def _figure(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, paths: list[Path], frame: Frame) -> None:
    filled = rng.random() < 0.14 and any(path.fill for path in paths)
    broken = rng.random() < 0.05
    if rng.random() < 0.07:
        # Some scanners put the marker on a black or dark grey tile.
        low = frame(np.array([[-0.55, -0.58], [0.55, -0.58], [0.55, 0.58], [-0.55, 0.58]]))
        canvas.draw([Stroke(low, 0)], pick(rng, ((0, 0, 0), (30, 30, 30), (20, 20, 40))), kind)
    if filled:
        inside = shaded(
            rng, pick(rng, ((90, 90, 90), (60, 60, 60), (150, 150, 150), (200, 170, 150), pen.colour, (70, 90, 110)))
        )
        solid = [Stroke(frame(path.points), 0) for path in paths if path.fill and path.closed]
        _shade(canvas, rng, solid[:2], inside, kind)
    strokes = []
    for path in paths:
        points = frame(path.points)
        if broken:
            strokes += [
                Stroke(piece, pen.width) for piece in dashed(points, 3 * pen.width, 2 * pen.width, closed=path.closed)
            ]
        else:
            strokes.append(Stroke(points, pen.width, path.closed))
    if pen.edge:
        canvas.draw([Stroke(s.points, s.width + 2, s.closed) for s in strokes], (0, 0, 0), kind, fineness=pen.fineness)
    canvas.draw(strokes, pen.colour, kind, alpha=pen.alpha, fineness=pen.fineness)


def _shade(canvas: Canvas, rng: np.random.Generator, solid: list[Stroke], colour: Colour, kind: int) -> None:
    """Fill a figure, evenly or as if lit from one side."""
    drawn = rasterised(solid, canvas.width, canvas.height)
    if drawn is None:
        return
    x, y, coverage = drawn
    h, w = coverage.shape
    light = np.ones((h, w), np.float32)
    if rng.random() < 0.6:
        across = np.linspace(-1, 1, w)[None] * rng.uniform(-0.5, 0.5) + np.linspace(-1, 1, h)[:, None] * rng.uniform(
            -0.5, 0.5
        )
        light = (1 + across).astype(np.float32)
    paint = np.clip(light[:, :, None] * np.array(colour, np.float32), 0, 255).astype(np.uint8)
    canvas.stamp(coverage, x, y, paint, kind, alpha=float(rng.uniform(0.6, 1.0)))


def probe_colour(rng: np.random.Generator, pen: Pen) -> Colour:
    if rng.random() < 0.6:
        return pen.colour
    if pen.held_out:
        return mark_colour(rng, held_out=True)
    return shaded(rng, pick(rng, pick(rng, (YELLOWS, CYANS, GREENS, REDS, WHITES))))


def probe(canvas: Canvas, rng: np.random.Generator, pen: Pen, kind: int, frame: Frame, height: float) -> None:
    """The mark of the probe, at any angle on the outline."""
    name = pick(rng, split(PROBES, pen.held_out))
    if name == "none":
        return
    colour = probe_colour(rng, pen)
    centre = frame(rng.uniform(-0.33, 0.33, (1, 2)))[0]
    x, y = float(centre[0]), float(centre[1])
    half = height * rng.uniform(0.06, 0.17)
    thick = max(pen.width * rng.uniform(1.2, 3.0), 1.5)
    angle = float(pick(rng, (0.0, 90.0, 45.0, -45.0, rng.uniform(0, 360), rng.uniform(0, 360))))
    bar = line(x - half, y, x + half, y)
    parts: list[Stroke] = []
    dot: list[Stroke] = []
    if name in ("bar", "bar with dot"):
        parts = [Stroke(bar, thick)]
        if name == "bar with dot":
            radius = max(thick * 0.8, 1.5)
            dot = [Stroke(arc(x + half, y, radius, radius, steps=14), 0)]
    elif name == "thick L":
        parts = [Stroke(np.array([[x - half, y], [x + half, y], [x + half, y - half * rng.uniform(0.3, 0.8)]]), thick)]
    elif name == "arrow":
        parts = [
            Stroke(bar, pen.width),
            Stroke(np.array([[x + half, y], [x + half * 0.3, y - half * 0.4], [x + half * 0.3, y + half * 0.4]]), 0),
        ]
    elif name == "double bar":
        parts = [Stroke(bar + np.array([0.0, d]), pen.width) for d in (-thick, thick)]
    elif name == "block":
        d = half * rng.uniform(0.25, 0.6)
        parts = [
            Stroke(
                np.array([[x - half, y - d], [x + half, y - d], [x + half, y + d], [x - half, y + d]]),
                0 if rng.random() < 0.6 else pen.width,
                True,
            )
        ]
    elif name == "dot":
        parts = [Stroke(arc(x, y, half * 0.4, half * 0.4, steps=16), 0)]
    elif name == "rod and tick":
        parts = [Stroke(bar, thick), Stroke(line(x, y, x, y - half), pen.width)]
    else:
        parts = [Stroke(np.vstack([[[x, y]], arc(x, y, half, half, -35, 35, 8)]), pen.width, True)]
    canvas.draw(
        [Stroke(turned(s.points, angle, x, y), s.width, s.closed) for s in parts], colour, kind, fineness=pen.fineness
    )
    if dot:
        canvas.draw([Stroke(turned(s.points, angle, x, y), s.width) for s in dot], shaded(rng, pick(rng, GREENS)), kind)
