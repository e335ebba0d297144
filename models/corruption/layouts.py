"""A screen before anyone marks it: where the tissue lies, the fan it fills, and where the scanner writes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.corruption.strokes import Colour, Points, Stroke, arc

Pane = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


@dataclass(frozen=True)
class Fan:
    """A sector: apex, near and far radius in pixels, half its opening in degrees; it looks straight down."""

    x: float
    y: float
    near: float
    reach: float
    half: float

    def outline(
        self, near: float = 0.0, far: float = 1.0, left: float = -1.0, right: float = 1.0, steps: int = 40
    ) -> Points:
        """The corners of a part of it: depths and angles as shares of its range."""
        radii = [self.near + share * (self.reach - self.near) for share in (near, far)]
        angles = [90 - share * self.half for share in (left, right)]
        close = arc(self.x, self.y, radii[0], radii[0], angles[0], angles[1], steps)
        return np.vstack([close, arc(self.x, self.y, radii[1], radii[1], angles[1], angles[0], steps)])


@dataclass(frozen=True)
class Lettering:
    """One line the scanner writes: corner, size in pixels, and what it says: banner, parameter, or the text itself."""

    x: float
    y: float
    size: float
    says: str
    right_aligned: bool = False


@dataclass(frozen=True)
class Beam:
    """A Doppler cursor and its sample volume, which lie on the tissue and on the flow that is coloured there."""

    strokes: list[Stroke]
    colour: Colour
    fineness: int


@dataclass
class Layout:
    """The panes of tissue, the fan of each (None: a full rectangle), the beams that are followed, and the scanner's
    lettering."""

    panes: list[Pane]
    fans: list[Fan | None]
    held_out: bool = False
    letters: list[Lettering] = field(default_factory=list)
    beams: list[Beam] = field(default_factory=list)

    def pick(self, rng: np.random.Generator) -> tuple[Pane, Fan | None]:
        which = int(rng.integers(len(self.panes)))
        return self.panes[which], self.fans[which]
