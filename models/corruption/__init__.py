"""The annotation synthesiser: draws sonographers' marks on clean frames and says which pixel is which kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.corruption import arrows, body_markers, calipers, color_boxes, cutting, screens, texts
from models.corruption.degradation import Degradation
from models.corruption.layouts import Layout
from models.corruption.strokes import Canvas, Image
from models.corruption.styles import ANY_COLOUR, pen, pick, scanner_scale

KINDS = ("body_marker", "caliper", "color_box", "text", "arrow")
BODY_MARKER, CALIPER, COLOR_BOX, TEXT, ARROW = range(1, 6)

CLEAN_SHARE = 0.25
SEVERAL_SHARE = 0.40
SCREEN_SHARE = 0.65
CUT_SHARE = 0.15
# Half a letter or a corner of an outline is what an end mark looks like; a cut caliper is one still.
_CUT_KINDS = (BODY_MARKER, CALIPER, TEXT, ARROW)


@dataclass(frozen=True)
class Sample:
    """One training sample; the images are uint8 HxWx3 RGB of one size, `labels` uint8 HxW.

    `labels` holds i + 1 where a mark of KINDS[i] was drawn in `noisy`, 0 elsewhere; `kinds` are those present in it.
    `noisy_again` has other marks on the same clean frame: the target of Noise2Noise training.
    """

    clean: Image
    noisy: Image
    noisy_again: Image
    labels: Image
    kinds: tuple[str, ...]


def corrupt(frame: Image, rng: np.random.Generator, *, held_out: bool = False, screen: bool | None = None) -> Sample:
    """Draw marks on a clean frame (uint8 HxWx3), as one degraded sample.

    `screen` says whether to compose a scanner's screen round the frame (None: at random); `held_out` draws with styles
    that training never sees. What a screen shows besides letters (ticks, bars, traces) belongs to the clean frame.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"a frame is uint8 HxWx3, not {frame.dtype} {frame.shape}")
    on_screen = bool(rng.random() < SCREEN_SHARE) if screen is None else screen
    clean, layout = screens.compose(frame, rng, on_screen, held_out)
    marked = bool(rng.random() >= CLEAN_SHARE)
    first = mark(clean, rng, layout, chosen(rng) if marked else (), held_out)
    second = mark(clean, rng, layout, chosen(rng) if rng.random() >= CLEAN_SHARE else (), held_out)
    degradation = Degradation.drawn(rng)
    labels = degradation.labels(first, clean)
    images = [degradation.image(image) for image in (clean, first.image, second.image)]
    window = cutting.through_a_mark(rng, labels, _CUT_KINDS) if rng.random() < CUT_SHARE else None
    if window is not None:
        labels, *images = (np.ascontiguousarray(image[window]) for image in (labels, *images))
    present = np.bincount(labels.ravel(), minlength=len(KINDS) + 1)[1:]
    return Sample(
        clean=images[0],
        noisy=images[1],
        noisy_again=images[2],
        labels=labels,
        kinds=tuple(kind for kind, count in zip(KINDS, present, strict=True) if count),
    )


def chosen(rng: np.random.Generator) -> tuple[int, ...]:
    """The kinds to draw on one marked frame: one, or several together."""
    likely = np.array([0.24, 0.27, 0.20, 0.10, 0.19])
    several = rng.random() < SEVERAL_SHARE / (1 - CLEAN_SHARE)
    count = pick(rng, (2, 3, 4), (0.6, 0.3, 0.1)) if several else 1
    return tuple(int(kind) + 1 for kind in rng.choice(len(KINDS), size=count, replace=False, p=likely))


def mark(clean: Image, rng: np.random.Generator, layout: Layout, kinds: tuple[int, ...], held_out: bool) -> Canvas:
    """Draw the kinds on a copy of the clean frame; no kinds, no letters of the scanner either."""
    canvas = Canvas(clean)
    if not kinds:
        return canvas
    scale = scanner_scale(rng, canvas.width, canvas.height)
    if COLOR_BOX in kinds:
        color_boxes.draw(canvas, rng, pen(rng, scale, held_out, ANY_COLOUR), COLOR_BOX, layout)
        for beam in layout.beams:  # they lie on the flow as well
            canvas.draw(beam.strokes, beam.colour, fineness=beam.fineness)
    screens.letter(canvas, rng, layout, TEXT)
    for kind in kinds:
        own = pen(rng, scale, held_out, ANY_COLOUR)
        if kind == BODY_MARKER:
            body_markers.draw(canvas, rng, own, BODY_MARKER, layout)
        elif kind == CALIPER:
            calipers.draw(canvas, rng, own, CALIPER, TEXT, layout)
        elif kind == TEXT:
            texts.draw(canvas, rng, own, TEXT, layout)
        elif kind == ARROW:
            arrows.draw(canvas, rng, own, ARROW)
    return canvas
