"""Measurement calipers: end marks, the line between them, their digits, ellipses and traces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from models.corruption.layouts import Layout, Pane
from models.corruption.strokes import Canvas, Points, Stroke, arc, dashed, line, rectangle, smooth, turned
from models.corruption.styles import Pen, any_dashes, pick, split
from models.corruption.texts import fonts, write

GLYPHS: tuple[str, ...] = (
    "plus",
    "cross",
    "open plus",
    "i-bar",
    "circled plus",
    "thick plus",
    "small plus",
    "tick",
    "diamond",
    "circled cross",
    "long plus",
    "dot plus",
    "t-bar",
    "square",
    "corner",
    "plus wide",
    "star",
    "dot",
    "asterisk",
    "open cross",
)
# End marks that a line joins at their rim, not in their middle.
_OPEN = ("open plus", "circled plus", "circled cross", "open cross", "diamond", "square", "ring")
# Share of training measurements whose end marks are made up on the spot.
MADE_UP = 0.3
# Share of training lines whose dashes are.
ANY_DASHES = 0.2
LINES: tuple[str, ...] = (
    "dotted",
    "dashed",
    "none",
    "solid",
    "dash-dot",
    "dense dotted",
    "ends only",
    "coarse dotted",
    "thin solid",
    "long dashed",
)
# Dash and gap of lines that have some, in line widths.
DASHES: dict[str, tuple[float, float]] = {
    "dotted": (0.7, 1.9),
    "dense dotted": (0.6, 1.2),
    "coarse dotted": (1.0, 4.5),
    "dashed": (4.0, 3.0),
    "long dashed": (9.0, 4.0),
    "dash-dot": (5.0, 2.5),
    "ends only": (6.0, 3.0),
}
# Share that is left of every second dash of "dash-dot".
DOT = 0.15


def glyph(name: str, x: float, y: float, size: float, width: float, toward: float) -> list[Stroke]:
    """Strokes of one end mark, `size` pixels across, at an end of a line running `toward` degrees."""
    h = size / 2
    plus = [line(x - h, y, x + h, y), line(x, y - h, x, y + h)]
    if name in ("plus", "thick plus", "small plus", "long plus", "plus wide"):
        if name == "plus wide":
            plus = [line(x - h * 1.3, y, x + h * 1.3, y), line(x, y - h * 0.8, x, y + h * 0.8)]
        scale = {"thick plus": 2.0}.get(name, 1.0)
        return [Stroke(p, width * scale) for p in plus]
    if name in ("cross", "open cross"):
        gap = 0.35 if name == "open cross" else 0.0
        arms = _arms(x, y, h * 0.9, gap)
        return [Stroke(turned(p, 45, x, y), width) for p in arms]
    if name == "open plus":
        return [Stroke(p, width) for p in _arms(x, y, h, 0.35)]
    if name == "circled plus":
        return [Stroke(arc(x, y, h, h), width, True), *(Stroke(p, width) for p in _arms(x, y, h, 0.0))]
    if name == "circled cross":
        return [
            Stroke(arc(x, y, h, h), width, True),
            *(Stroke(turned(p, 45, x, y), width) for p in _arms(x, y, h, 0.0)),
        ]
    if name == "i-bar":
        bar = turned(line(x, y - h, x, y + h), toward, x, y)
        caps = [turned(line(x - h / 2, y + s * h, x + h / 2, y + s * h), toward, x, y) for s in (-1, 1)]
        return [Stroke(p, width) for p in (bar, *caps)]
    if name == "tick":
        return [Stroke(turned(line(x, y - h, x, y + h), toward, x, y), width)]
    if name == "t-bar":
        return [
            Stroke(turned(line(x, y - h, x, y + h), toward, x, y), width),
            Stroke(turned(line(x, y, x + h, y), toward, x, y), width),
        ]
    if name == "diamond":
        return [
            Stroke(turned(_square(x, y, h * 0.7), 45, x, y), width, True),
            Stroke(arc(x, y, 0.5, 0.5, steps=6), width),
        ]
    if name == "square":
        return [Stroke(_square(x, y, h * 0.7), width, True)]
    if name == "corner":
        # It opens away from the line: a line between two heads that point outwards is an arrow.
        return [Stroke(turned(np.array([[x - h, y - h], [x, y], [x - h, y + h]]), toward, x, y), width)]
    if name == "star":
        rays = [(a, 1.0 if a % 90 == 0 else 0.7) for a in (0, 45, 90, 135)]
        return [Stroke(turned(line(x - h * r, y, x + h * r, y), a, x, y), width) for a, r in rays]
    if name == "dot":
        return [Stroke(arc(x, y, h * 0.45, h * 0.45, steps=12), 0)]
    if name == "dot plus":
        return [
            *(Stroke(p, width) for p in _arms(x, y, h, 0.45)),
            Stroke(arc(x, y, width * 0.6, width * 0.6, steps=8), 0),
        ]
    return [Stroke(turned(line(x - h, y, x + h, y), a, x, y), width) for a in (0, 60, 120)]


def made_up(rng: np.random.Generator) -> list[Points]:
    """An end mark no table has, in units of half its size: a few strokes, repeated round its middle.

    A vendor's next one stands in no table either; drawn one per sample, they teach what end marks share.
    """
    fold = int(pick(rng, (2, 3, 4, 6), (0.3, 0.15, 0.45, 0.1)))
    arm = line(rng.uniform(0, 0.5), 0, 1, 0)
    parts = [arm]
    if rng.random() < 0.35:
        parts.append(line(1, -rng.uniform(0.1, 0.6), 1, rng.uniform(0.1, 0.6)))
    # Two heads that point away from one another are an arrow, whatever measurement they end.
    if fold > 2 and rng.random() < 0.25:
        parts.append(np.array([[0.6, -0.4], [1.0, 0.0], [0.6, 0.4]]) * rng.uniform(0.5, 1))
    first = float(pick(rng, (0.0, 45.0, 90.0, rng.uniform(0, 90))))
    strokes = [turned(part, first + turn * 360 / fold) for turn in range(fold) for part in parts]
    if rng.random() < 0.4:
        # A ring alone is how vendors sign the probe's side, and four arms that end on one are kept for testing: these
        # stop short of it or reach beyond.
        radius = rng.uniform(0.25, 0.8) if fold == 4 else rng.uniform(0.25, 1.0)
        strokes.append(arc(0, 0, radius, radius, steps=int(pick(rng, (5, 7, 20)))))
    return strokes


def _arms(x: float, y: float, h: float, gap: float) -> list[Points]:
    g = h * gap
    return [line(x - h, y, x - g, y), line(x + g, y, x + h, y), line(x, y - h, x, y - g), line(x, y + g, x, y + h)]


def _square(x: float, y: float, h: float) -> Points:
    return np.array([[x - h, y - h], [x + h, y - h], [x + h, y + h], [x - h, y + h]], np.float64)


def connection(name: str, path: Points, width: float, *, pitch: float = 1.0, closed: bool = False) -> list[Stroke]:
    """Strokes of the line that joins two end marks, or of a trace; `pitch` widens its dashes and gaps."""
    if name == "none":
        return []
    if name in ("solid", "thin solid"):
        return [Stroke(path, 1.0 if name == "thin solid" else width, closed)]
    w = max(1.0, width)
    on, off = DASHES[name]
    pieces = dashed(path, on * w * pitch, off * w * pitch, closed=closed)
    if name == "ends only" and len(pieces) > 6:
        pieces = pieces[:3] + pieces[-3:]
    if name == "dash-dot":
        pieces = [p if i % 2 == 0 else p[:1] + (p[-1:] - p[:1]) * [[0.0], [DOT]] for i, p in enumerate(pieces)]
    return [Stroke(p, w) for p in pieces]


@dataclass(frozen=True)
class Style:
    glyph: str
    line: str
    size: float
    glyph_width: float
    line_width: float
    pitch: float
    font: str
    digits: bool
    own: tuple[Points, ...] = ()
    """Strokes of an end mark of its own, in units of half its size, instead of `glyph`."""
    dashes: tuple[float, ...] = ()
    """Dashes and gaps of a line of its own, in its widths, instead of `line`."""

    def mark(self, x: float, y: float, toward: float) -> list[Stroke]:
        """Strokes of one end mark at an end of a line running `toward` degrees."""
        if self.own:
            return [
                Stroke(turned(part * (self.size / 2), toward) + np.array([x, y]), self.glyph_width) for part in self.own
            ]
        return glyph(self.glyph, x, y, self.size, self.glyph_width, toward)

    def joined(self, path: Points) -> list[Stroke]:
        """Strokes of the line between two end marks, where there is one."""
        return self._line(self.line, path)

    def outlined(self, path: Points) -> list[Stroke]:
        """Strokes of a closed line: an ellipse or a trace, which is dotted where nothing joins end marks."""
        return self._line(self.line if self.line != "none" else "dotted", path, closed=True)

    def _line(self, name: str, path: Points, *, closed: bool = False) -> list[Stroke]:
        if not self.dashes:
            return connection(name, path, self.line_width, pitch=self.pitch, closed=closed)
        pattern = [length * self.line_width for length in self.dashes]
        return [Stroke(piece, self.line_width) for piece in dashed(path, *pattern, closed=closed)]


def style(rng: np.random.Generator, pen: Pen, made_up_share: float = MADE_UP) -> Style:
    name = pick(rng, split(GLYPHS, pen.held_out))
    if not pen.held_out and rng.random() < 0.55:
        name = "plus"
    size = float(np.clip(rng.normal(16, 5), 5, 32)) * pen.scale
    if rng.random() < 0.12 or name == "small plus":
        size = rng.uniform(4.5, 9) * max(1.0, pen.scale)
    lines = split(LINES, pen.held_out)
    weights = [{"dotted": 4.0, "none": 4.5, "dashed": 1.5}.get(one, 0.8) for one in lines]
    glyph_width = float(pick(rng, (1.0, 1.4, 2.0, 2.4, 3.0), (0.27, 0.18, 0.25, 0.12, 0.18)) * max(1.0, pen.scale**0.7))
    glyph_width = min(glyph_width, max(1.0, size / 4.5))
    joined = pick(rng, lines, weights)
    if name == "plus" and rng.random() < 0.35:
        # Older scanners join nothing: two small crosses stand alone, and an archive that enlarges blurs them.
        joined = "none" if "none" in lines else joined
    return Style(
        glyph=name,
        line=joined,
        size=float(size),
        glyph_width=round(glyph_width) if pen.fineness == 1 else glyph_width,
        # The line between the marks is as thin as they are, or thinner.
        line_width=max(1.0, glyph_width * float(rng.uniform(0.4, 1.0))),
        pitch=float(rng.uniform(0.8, 1.5)),
        font=pick(rng, fonts(pen.held_out)),
        digits=bool(rng.random() < 0.6),
        own=tuple(made_up(rng)) if made_up_share and not pen.held_out and rng.random() < made_up_share else (),
        dashes=any_dashes(rng) if joined != "none" and not pen.held_out and rng.random() < ANY_DASHES else (),
    )


def draw(
    canvas: Canvas,
    rng: np.random.Generator,
    pen: Pen,
    kind: int,
    text_kind: int,
    layout: Layout,
    made_up_share: float = MADE_UP,
) -> None:
    """One to four measurements round one structure, with the look one scanner gives all of them."""
    look = style(rng, pen, made_up_share)
    pane = layout.pick(rng)[0]
    size = (pane[2] * pane[3]) ** 0.5
    radius = size * float(np.clip(np.exp(rng.normal(-2.05, 0.6)), 0.015, 0.45))
    if look.size < 9 * pen.scale and rng.random() < 0.5:
        radius = look.size * rng.uniform(0.8, 3.0)
    x, y = site(canvas, rng, pane, radius)
    count = pick(rng, (1, 2, 3, 4), (0.42, 0.42, 0.1, 0.06))
    angle = rng.uniform(-40, 40) if rng.random() < 0.75 else rng.uniform(0, 180)
    shape = pick(rng, ("lines", "ellipse", "trace", "angle"), (0.84, 0.09, 0.05, 0.02))
    if shape == "ellipse" and rng.random() < 0.5:
        radius *= rng.uniform(1.2, 2.0)
    results: list[str] = []
    other = replace(look, glyph=pick(rng, split(GLYPHS, pen.held_out))) if rng.random() < 0.15 else look
    if shape == "trace":
        turn = np.linspace(0, 2 * np.pi, 11, endpoint=False) + rng.normal(0, 0.1, 11)
        reach = radius * rng.uniform(0.75, 1.1, 11)
        outline = smooth(np.stack([x + reach * np.cos(turn), y + 0.7 * reach * np.sin(turn)], 1), closed=True)
        _ink(canvas, pen, look.outlined(outline), kind)
        _ink(canvas, pen, look.mark(float(outline[0, 0]), float(outline[0, 1]), 0), kind)
        results.append("Area")
    if shape == "angle":
        # Hip and other angles: long lines that cross.
        for number in range(1, 3 + (rng.random() < 0.4)):
            angle += rng.uniform(25, 75)
            ends = turned(line(x - 2 * radius, y, x + 2 * radius, y), angle, x + rng.normal(0, radius / 3), y)
            _pair(
                canvas,
                rng,
                pen,
                replace(look, line="solid" if look.line == "none" else look.line),
                ends,
                angle,
                number,
                kind,
            )
        return
    for number in range(1, count + 1 if shape != "trace" else 1):
        reach = radius * (1.0 if number == 1 else rng.uniform(0.45, 0.95))
        mid = (x, y) if number <= 2 or rng.random() < 0.4 else (x + rng.normal(0, radius), y + rng.normal(0, radius))
        ends = turned(line(mid[0] - reach, mid[1], mid[0] + reach, mid[1]), angle, *mid)
        if shape == "ellipse" and number == 2:
            outline = turned(arc(x, y, radius, reach, steps=64), angle - 90, x, y)
            _ink(canvas, pen, look.outlined(outline), kind)
        _pair(canvas, rng, pen, look if number % 2 else other, ends, angle, number, kind)
        angle += rng.normal(90, 7)
        results.append(str(number))
    if rng.random() < 0.4:
        _results(canvas, rng, pen, look, results, text_kind)


def site(canvas: Canvas, rng: np.random.Generator, pane: Pane, radius: float) -> tuple[float, float]:
    """A centre for a measurement, seldom out in the black; half of the time the darkest of a few, as lesions are."""
    tries = np.stack(
        [pane[0] + rng.uniform(0.04, 0.96, 8) * pane[2], pane[1] + rng.uniform(0.04, 0.94, 8) * pane[3]], axis=1
    )
    reach = max(2, int(radius * 0.5))
    boxes = [
        canvas.image[max(0, int(y) - reach) : int(y) + reach : 3, max(0, int(x) - reach) : int(x) + reach : 3, 1]
        for x, y in tries
    ]
    # A place that is black all through is outside of the tissue.
    darkness = [float(box.mean()) if box.size and box.max() > 24 else 999.0 for box in boxes]
    if rng.random() < 0.5:
        first = int(np.argmin(np.array(darkness) == 999.0)) if rng.random() < 0.85 else 0
        return float(tries[first, 0]), float(tries[first, 1])
    x, y = tries[int(np.argmin(darkness))]
    return float(x), float(y)


def _ink(canvas: Canvas, pen: Pen, strokes: list[Stroke], kind: int) -> None:
    if pen.edge:
        canvas.draw([Stroke(s.points, s.width + 2, s.closed) for s in strokes], (0, 0, 0), kind, fineness=pen.fineness)
    canvas.draw(strokes, pen.colour, kind, alpha=pen.alpha, fineness=pen.fineness)


def _pair(
    canvas: Canvas, rng: np.random.Generator, pen: Pen, look: Style, ends: Points, angle: float, number: int, kind: int
) -> None:
    if pen.fineness == 1:
        ends = np.round(ends)
    inner = ends
    if look.own or look.glyph in (
        "open plus",
        "circled plus",
        "circled cross",
        "open cross",
        "diamond",
        "square",
    ):
        span = np.hypot(*(ends[1] - ends[0]))
        trim = min(0.4, look.size / 2 / max(span, 1))
        inner = ends + (ends[::-1] - ends) * trim
    _ink(canvas, pen, look.joined(inner), kind)
    for (x, y), toward in zip(ends, (angle, angle + 180), strict=True):
        _ink(canvas, pen, look.mark(float(x), float(y), toward), kind)
    if rng.random() < 0.06:
        # Some scanners write the length beside the line.
        at = ends[int(rng.integers(2))] + rng.uniform(4, 9, 2)
        length = f"{rng.uniform(0.2, 9):.2f} cm" if rng.random() < 0.6 else f"{rng.uniform(1, 80):.1f}mm"
        write(
            canvas,
            length,
            at[0],
            at[1],
            look.font,
            int(np.clip(look.size, 9, 30)),
            pen.colour,
            kind,
            edge="outline" if pen.edge else "none",
        )
    if look.digits:
        at = ends[0] if rng.random() < 0.6 else ends[1]
        size = int(np.clip(look.size * rng.uniform(0.75, 1.3), 8, 40))
        away = (at - ends.mean(axis=0)) / max(float(np.hypot(*(at - ends.mean(axis=0)))), 1.0)
        corner = at + away * look.size * rng.uniform(0.4, 0.9) - size * rng.uniform(0.2, 0.6, 2)
        text = str(number) if rng.random() < 0.85 else pick(rng, ("A", "B", "C", "D"))
        write(
            canvas,
            text,
            corner[0],
            corner[1],
            look.font,
            size,
            pen.colour,
            kind,
            crisp=pen.fineness == 1,
            edge="outline" if pen.edge else "none",
            alpha=pen.alpha,
        )


def panel(canvas: Canvas, rng: np.random.Generator, x: float, y: float, size: float, rows: int, kind: int) -> None:
    """The box the results stand in: a dark or shaded tile, at times with a border or a header."""
    corners = rectangle(x - size * 0.5, y - size * 0.4, x + size * rng.uniform(7, 11), y + size * (rows * 1.35 + 0.4))
    if rng.random() < 0.8:
        canvas.draw(
            [Stroke(corners, 0)],
            pick(rng, ((0, 0, 0), (0, 0, 0), (25, 25, 28), (45, 48, 52), (20, 30, 50))),
            kind,
            alpha=float(rng.uniform(0.6, 1.0)),
        )
    if rng.random() < 0.5:
        canvas.draw(
            [Stroke(corners, 1.0, True)],
            pick(rng, ((140, 140, 140), (200, 200, 200), (90, 100, 120))),
            kind,
            fineness=1,
        )
    if rng.random() < 0.3:
        top = corners[:2]
        canvas.draw([Stroke(np.vstack([top - (0, size * 0.6), top[::-1]]), 0)], (110, 115, 120), kind)


def _results(canvas: Canvas, rng: np.random.Generator, pen: Pen, look: Style, names: list[str], kind: int) -> None:
    size = int(np.clip(rng.uniform(11, 17) * pen.scale, 8, 40))
    unit = pick(rng, ("cm", "mm"))
    form = pick(
        rng,
        (
            "{n} D {v}{u}",
            "{n} L {v} {u}",
            "+ {n} Dist {v} {u}",
            "Dist {v} {u}",
            "D{n} {v} {u}",
            "{n} {v}{u}",
            "+ L{n} {v} {u}",
        ),
    )
    x, y = rng.uniform(0.0, 0.75) * canvas.width, rng.uniform(0.72, 0.92) * canvas.height
    if rng.random() < 0.25:
        y = rng.uniform(0.0, 0.2) * canvas.height
    edge = pick(rng, ("none", "outline"))
    if rng.random() < 0.35:
        panel(canvas, rng, x, y, size, len(names), kind)
    for name in names:
        value = rng.uniform(0.2, 9) * (10 if unit == "mm" else 1)
        text = form.format(n=name, v=f"{value:.{2 if unit == 'cm' else 1}f}", u=unit)
        _, height = write(canvas, text, x, y, look.font, size, pen.colour, kind, crisp=pen.fineness == 1, edge=edge)
        y += height * 1.3
