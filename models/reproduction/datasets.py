"""The paper's three data sets, drawn on clean frames: noisy, second noisy, clean and mask of every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.corruption import body_markers, calipers, color_boxes
from models.corruption.degradation import Degradation
from models.corruption.layouts import Layout
from models.corruption.strokes import Canvas
from models.corruption.styles import Pen, pen, scanner_scale
from models.dataset import CleanFrame, Split, split
from models.reproduction.pipelines import Defects

Image = npt.NDArray[np.uint8]
Draw = Callable[[Canvas, np.random.Generator], None]

NATIVE = 800
"""Side in pixels of the square the marks are drawn on."""
STORED = 512
"""Side in pixels after the reduction every sample goes through."""
JPEG_QUALITY = 90

_MARK = 1
_TRIES = 30
_CENTRAL = 0.5  # side of the middle of a frame, as a share of the frame's


def _body_marker(canvas: Canvas, rng: np.random.Generator) -> None:
    body_markers.draw(canvas, rng, _pen(canvas, rng), _MARK, _bare(canvas))


def _radial_line(canvas: Canvas, rng: np.random.Generator) -> None:
    # End marks of scanners alone, as in the paper's data.
    calipers.draw(canvas, rng, _pen(canvas, rng), _MARK, _MARK, _bare(canvas), made_up_share=0.0)


def _vascular_flow(canvas: Canvas, rng: np.random.Generator) -> None:
    color_boxes.draw(canvas, rng, _pen(canvas, rng), _MARK, _bare(canvas))


def _pen(canvas: Canvas, rng: np.random.Generator) -> Pen:
    return pen(rng, scanner_scale(rng, canvas.width, canvas.height), held_out=False)


def _bare(canvas: Canvas) -> Layout:
    """A frame without a scanner's screen round it."""
    return Layout([(0, 0, canvas.width, canvas.height)], [None], False)


DRAW: dict[str, Draw] = {"body_marker": _body_marker, "radial_line": _radial_line, "vascular_flow": _vascular_flow}
"""The paper's names of its data sets; the product calls the three kinds `body_marker`, `caliper` and `color_box`."""


@dataclass(frozen=True)
class Sample:
    """One frame twice annotated; images uint8 (512, 512, 3), mask bool (512, 512) of the pixels drawn in `noisy`.

    `target` is what Noise2Clean learns towards; it differs from `clean` only where the pipeline is defective.
    """

    noisy: Image
    second: Image
    clean: Image
    target: Image
    mask: npt.NDArray[np.bool_]


def sample(frame: Image, kind: str, rng: np.random.Generator, defects: Defects) -> Sample:
    """Draw two independent sets of marks of one kind on a clean RGB frame of any size, and degrade all alike."""
    clean = square(frame)
    first, other = (annotated(clean, kind, rng, fixed_places=defects.fixed_places) for _ in range(2))
    mask_of = first
    if defects.wrong_icon_masks and kind == "radial_line" and rng.random() < 0.5:
        mask_of = other
    return Sample(
        noisy=degraded(first.image, defects),
        second=degraded(other.image, defects),
        clean=degraded(clean, defects),
        target=_reduced(clean) if defects.clean_target_skips_chain else degraded(clean, defects),
        mask=_mask(mask_of, clean, defects),
    )


def square(frame: Image) -> Image:
    """The middle square of a frame, NATIVE pixels wide."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = np.ascontiguousarray(frame[top : top + side, left : left + side])
    smooth = cv2.INTER_AREA if side > NATIVE else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(middle, (NATIVE, NATIVE), interpolation=smooth), np.uint8)


def annotated(clean: Image, kind: str, rng: np.random.Generator, *, fixed_places: bool) -> Canvas:
    """Draw one sample's marks, anywhere in the frame or where the paper always had them.

    The pen has habits of its own. So the frame is rolled by a random way, drawn on, and rolled back; what would be
    torn by that, and what stands where the pipeline has no marks, is drawn anew.
    """
    for _ in range(_TRIES):
        shift = rng.integers(NATIVE, size=2)
        canvas = Canvas(np.roll(clean, tuple(-shift), axis=(0, 1)))
        DRAW[kind](canvas, rng)
        torn = _torn(canvas, shift)
        canvas.image, canvas.kind, canvas.coverage = (
            np.roll(plane, tuple(shift), axis=(0, 1)) for plane in (canvas.image, canvas.kind, canvas.coverage)
        )
        if not torn and (not fixed_places or _at_its_place(canvas, kind)):
            return canvas
    canvas = Canvas(clean)
    DRAW[kind](canvas, rng)
    return canvas


def _torn(canvas: Canvas, shift: npt.NDArray[np.int64]) -> bool:
    """Whether the marks touch the edge of the rolled frame, or the seam where the true edges of the frame meet."""
    x, y, width, height = cv2.boundingRect(canvas.kind)
    return any(
        start == 0 or start + length == NATIVE or start < NATIVE - seam < start + length
        for start, length, seam in ((x, width, shift[1]), (y, height, shift[0]))
    )


def _at_its_place(canvas: Canvas, kind: str) -> bool:
    """As published: calipers stand in the middle of the frame, body markers never, colour boxes anywhere."""
    x, y, width, height = cv2.boundingRect(canvas.kind)
    central = max(abs((x + width / 2) / NATIVE - 0.5), abs((y + height / 2) / NATIVE - 0.5)) < _CENTRAL / 2
    return kind == "vascular_flow" or central == (kind == "radial_line")


def degraded(image: Image, defects: Defects) -> Image:
    """The chain from the scanner's screen to the data set: reduction from NATIVE to STORED, then JPEG."""
    if defects.nearest_resize:
        nearest = cv2.resize(image, (STORED, STORED), interpolation=cv2.INTER_NEAREST)
        return Degradation(quality=JPEG_QUALITY).image(np.asarray(nearest, np.uint8))
    return Degradation(scale=STORED / NATIVE, quality=JPEG_QUALITY).image(image)


def _reduced(image: Image) -> Image:
    return Degradation(scale=STORED / NATIVE).image(image)


def _mask(canvas: Canvas, clean: Image, defects: Defects) -> npt.NDArray[np.bool_]:
    if defects.nearest_resize:
        labels = Degradation().labels(canvas, clean)
        return cv2.resize(labels, (STORED, STORED), interpolation=cv2.INTER_NEAREST) > 0
    return Degradation(scale=STORED / NATIVE).labels(canvas, clean) > 0


@dataclass(frozen=True)
class Parts:
    """Frames for training, for choosing thresholds and for the tables; no two share a source or a patient group."""

    training: tuple[CleanFrame, ...]
    validation: tuple[CleanFrame, ...]
    test: tuple[CleanFrame, ...]


def parts(
    frames: Sequence[CleanFrame], validation_sources: Sequence[str], test_sources: Sequence[str], seed: int
) -> Parts:
    """Hold out whole data sets; where none of the named ones is at hand, a quarter of the groups instead.

    Raises `DataError` when a part stays empty and `LeakySplit` when parts share a group.
    """
    outer = _hold_out(frames, test_sources, seed)
    inner = _hold_out(outer.training, validation_sources, seed + 1)
    return Parts(inner.training, inner.validation, outer.validation)


def _hold_out(frames: Sequence[CleanFrame], sources: Sequence[str], seed: int) -> Split:
    at_hand = any(frame.source in sources for frame in frames)
    return split(frames, sources, 0.0 if at_hand else 0.25, seed)
