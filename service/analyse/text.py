"""Burned-in text, read by a small OCR model (RapidOCR on ONNX Runtime): an extra, run only where it is asked for.

The network says *that* something is written and where; this says *what*. The models lie in the package itself: nothing
is fetched, and a wheel without them is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from service import logs
from service.analyse.annotations import Annotation, Kind
from service.errors import ConfigurationError

log = logs.get(__name__)

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB
Box = tuple[int, int, int, int]  # x, y, width, height

INSTALL = "Install it: pip install 'sonomark[ocr]'."
_DETECTION, _RECOGNITION = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"
SURE = 0.6  # confidence below which a line counts as not read
# "lt 11 o'clock": in the scanners' fonts a small l is a capital I, and nobody writes "It" on an image.
_SMALL_L = re.compile(r"\bIt(?=\d|\b)")
_STROKE = (5, 5)  # pixels, within which a stroke that is there on one frame alone makes
_SAME = 20.0  # more than this mean difference of grey levels


class NoReader(ConfigurationError):
    """The OCR package or its models are missing."""

    cure = INSTALL


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text with its box and the reader's confidence in [0, 1]."""

    text: str
    score: float
    box: Box


@dataclass(frozen=True, slots=True)
class Reading:
    """What is written on a frame. Not ``whole``: something is there that could not be read for sure."""

    lines: tuple[Line, ...]
    whole: bool


def models() -> tuple[Path, Path]:
    """The detection and recognition models within the package; raises NoReader."""
    found = find_spec("rapidocr")
    if found is None or found.origin is None:
        raise NoReader("No reader for burned-in text is installed.")
    folder = Path(found.origin).parent / "models"
    pair = folder / _DETECTION, folder / _RECOGNITION
    if not all(file.is_file() for file in pair):
        raise NoReader("The installed reader for burned-in text has no models of the version this code knows.")
    return pair


@dataclass(frozen=True, slots=True)
class Read:
    """A frame that was read, and everywhere that something is written on it."""

    frame: Frame
    places: tuple[Box, ...]
    reading: Reading


class TextReader:
    """Reads the text on frames."""

    def __init__(self, threads: int = 1) -> None:
        """Raises NoReader."""
        detection, recognition = models()
        from rapidocr import RapidOCR

        self._engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "Det.model_path": str(detection),
                "Rec.model_path": str(recognition),
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            }
        )

    def read(self, frame: Frame, boxes: Sequence[Box], before: Read | None = None) -> Read:
        """The text on a frame; ``boxes`` are where the network sees some.

        ``before`` is what was read on another frame of the same cine, which mostly shows the same: this one is read
        only where it bears something else. Frames of different images are never compared.
        """
        if before is not None and _show_the_same(before, frame, boxes):
            return before
        lines = tuple(self._lines(frame))
        whole = all(line.score >= SURE for line in lines) and all(_is_read(box, lines) for box in boxes)
        reading = Reading(tuple(line for line in lines if line.score >= SURE), whole)
        return Read(frame, (*boxes, *(line.box for line in lines)), reading)

    def _lines(self, frame: Frame) -> list[Line]:
        found: Any = self._engine(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        if found.txts is None:
            return []
        lines = [
            Line(_SMALL_L.sub("lt", str(text).strip()), float(score), _around(corners))
            for text, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
        ]
        return [line for line in lines if line.text]


@lru_cache
def text_reader(threads: int) -> TextReader | None:
    """This process's reader. Without one images are assessed all the same, and rules about text stay open."""
    try:
        return TextReader(threads)
    except NoReader as error:
        log.warning("text is not read", cause=error.what, cure=error.cure)
        return None


def with_text(marks: Sequence[Annotation], reading: Reading) -> tuple[Annotation, ...]:
    """The marks with what was read in them, from the top down; what the network missed becomes a mark of its own."""
    left = list(reading.lines)
    told = []
    for mark in marks:
        own = [line for line in left if mark.kind is Kind.TEXT and _lies_in(line.box, mark.box)]
        if own:
            left = [line for line in left if line not in own]
            own.sort(key=lambda line: (line.box[1], line.box[0]))
            read, score = "\n".join(line.text for line in own), min(line.score for line in own)
            mark = replace(mark, text=read, text_score=score)
        told.append(mark)
    told += [Annotation(Kind.TEXT, line.score, line.box, 0, text=line.text, text_score=line.score) for line in left]
    return tuple(told)


def _around(corners: Any) -> Box:
    points = np.asarray(corners, np.float64)
    left, top = (max(0, int(value)) for value in np.floor(points.min(axis=0)))
    right, bottom = (int(value) for value in np.ceil(points.max(axis=0)))
    return left, top, max(1, right - left), max(1, bottom - top)


def _lies_in(inner: Box, outer: Box) -> bool:
    """Whether the middle of ``inner`` lies in ``outer``, give or take half a line."""
    x, y, width, height = outer
    across, down, slack = inner[0] + inner[2] / 2, inner[1] + inner[3] / 2, inner[3] / 2
    return x - slack <= across <= x + width + slack and y - slack <= down <= y + height + slack


def _is_read(box: Box, lines: Sequence[Line]) -> bool:
    return any(_lies_in(line.box, box) or _lies_in(box, line.box) for line in lines)


def _show_the_same(before: Read, frame: Frame, boxes: Sequence[Box]) -> bool:
    """Whether no stroke differs wherever one of the two frames is written on; other words differ by a stroke or two."""
    places = (*before.places, *boxes)
    if before.frame.shape != frame.shape or not places:
        return False
    differing = cv2.blur(cv2.absdiff(before.frame, frame), _STROKE)
    return all(float(differing[y : y + high, x : x + wide].max(initial=0)) <= _SAME for x, y, wide, high in places)
