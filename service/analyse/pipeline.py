"""From a file to what was drawn on its frames: decode, restore, read the marks. No database, no network."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from service.analyse import residual
from service.analyse.annotations import (
    Annotation,
    Calibration,
    Evidence,
    Kind,
    Thresholds,
    limits_of,
    read_marks,
    weights_of,
)
from service.analyse.devices import Device
from service.analyse.overlays import burned, drawn_on, overlaid
from service.analyse.restoration import Card, Network, Restored, load_network
from service.analyse.text import Read, TextReader, text_reader, with_text
from service.dicom.overlays import Overlay, read_overlays
from service.dicom.pixels import close_decoders, iterate_frames, look, start_decoder
from service.errors import NetworkError, SonomarkError
from service.settings import Settings, settings

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB
Plane = npt.NDArray[np.uint8]  # (rows, columns)
Source = Path | Callable[[], Path]

# Decoder processes that work at the same time.
DECODERS = 4
# A mask is runs of few values: filters, made for photographs, cost it five times the time and save nothing.
_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
]


@dataclass(frozen=True)
class AssessedFrame:
    """One frame and the marks on it; ``number`` counts from 1, coordinates are pixels of the frame."""

    number: int
    rows: int
    columns: int
    annotations: tuple[Annotation, ...]
    scores: dict[str, float]  # presence in [0, 1] of every kind the network knows
    text_read: bool  # somebody read its text, so that silence means there is none
    mask: Plane  # 0 for background, i + 1 for the i-th kind

    def mask_png(self) -> bytes:
        """The typed mask, losslessly."""
        _, data = cv2.imencode(".png", self.mask, _PNG)
        return data.tobytes()


@dataclass(frozen=True)
class Assessment:
    """A file's frames, and by what they were assessed."""

    sop_instance_uid: str  # empty for PNG and JPEG
    number_of_frames: int  # of the file; at most `cine_frames` of them are assessed
    frames: tuple[AssessedFrame, ...]
    network: str
    thresholds: str
    bands: dict[str, tuple[float, float]]
    provider: str
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Restoration:
    """A frame, what it would be without marks, and the evidence for that. Not for diagnosis."""

    frame: Frame
    restored: Frame  # changed inside the mask only
    residual: Plane  # |frame - what the network made of it|, everywhere
    mask: Plane


class Pipeline:
    """Assesses files with one network."""

    def __init__(
        self,
        network: Network,
        cine_frames: int | None = None,
        asks_for_text: Callable[[], bool] = lambda: False,
        threads: int = 1,
    ) -> None:
        """``asks_for_text`` is asked before each batch whether burned-in text is to be read.

        Raises `NetworkError` when the network's card does not fit this code.
        """
        self._network = network
        self._asks_for_text = asks_for_text
        self._text_threads = threads
        self._cine_frames = cine_frames or settings().cine_frames
        self._thresholds, self._calibration = reading(network.card)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")

    @classmethod
    def of_settings(
        cls,
        chosen: Settings | None = None,
        threads: int | None = None,
        callers: int = 1,
        asks_for_text: Callable[[], bool] = lambda: False,
    ) -> "Pipeline":
        """The network that the settings name, see `load_network`; text is read as they say, where it is asked for."""
        house = chosen or settings()
        wish = {"always": lambda: True, "never": lambda: False}.get(house.read_text, asks_for_text)
        return cls(load_network(house, threads, callers), asks_for_text=wish, threads=threads or 1)

    @property
    def version(self) -> str:
        """Names the weights for good."""
        return self._network.name

    @property
    def reading(self) -> str:
        """Names the thresholds and the calibration by which the weights' output is read."""
        return self._network.card.digest

    @property
    def provider(self) -> Device:
        """Where the network runs now."""
        return self._network.provider

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self._decoders.shutdown(cancel_futures=True)
        close_decoders()

    def warm_up(self) -> None:
        """Pay now for what the first frame would otherwise wait for."""
        start_decoder()
        self._network.warm_up(600, 800)

    def assess(self, path: Path) -> Assessment:
        """Assess a DICOM, PNG or JPEG file; of a cine, frames spread evenly.

        Raises `NotDicom`, `Undecodable`, `NotFound` or `StorageError`.
        """
        (answer,) = self.finish(self.begin([path]))
        if isinstance(answer, SonomarkError):
            raise answer
        return answer

    def begin(self, sources: Sequence[Source]) -> "Begun":
        """Start to decode files, which `finish` assesses; the next ones may begin while these are at the network.

        A source is a path, or what fetches the file and returns its path. Where the device wants no batches, files are
        decoded frame by frame when `finish` asks: a cine then never lies in memory as a whole.
        """
        opened = [Opened(Clock()) for _ in sources]
        files = list(zip(sources, opened, strict=True))
        if self._network.batch == 1:
            return Begun(opened, [_frames(source, file, self._cine_frames) for source, file in files])
        # A task decodes a whole file: one that paused in the middle would keep a decoder that others wait for.
        coming = [self._decoders.submit(_all_frames, source, file, self._cine_frames) for source, file in files]
        return Begun(opened, [_result(frames) for frames in coming], coming)

    def finish(self, begun: "Begun") -> list[Assessment | SonomarkError]:
        """The answers for the files that `begin` was given, those of `assess`; what is wrong with one of them is its
        answer and no other's.

        Frames of one size go through the network together, as many as the device likes.
        """
        opened = begun.opened
        reader = text_reader(self._text_threads) if self._asks_for_text() else None
        errors: dict[int, SonomarkError] = {}
        waiting: list[tuple[int, int, Frame]] = []
        try:
            for index, frames in enumerate(begun.frames):
                try:
                    for number, frame in frames:
                        waiting.append((index, number, frame))
                        if len(waiting) >= self._network.batch:
                            self._assess_frames(waiting, opened, reader)
                            waiting.clear()
                except SonomarkError as error:
                    errors[index] = error
            if waiting:
                self._assess_frames(waiting, opened, reader)
        finally:
            for file in begun.coming:
                file.cancel()
        return [errors.get(index) or self._assessment(file) for index, file in enumerate(opened)]

    def restore(self, frame: Frame) -> Restoration:
        """What lies under the marks of one frame, for a person to look at."""
        (restored,) = self._network.restore([frame])
        evidence = self._read(restored)
        size = frame.shape[1], frame.shape[0]
        mask = _enlarged(evidence.mask, size, cv2.INTER_NEAREST)
        learned = _enlarged(restored.restoration, size, cv2.INTER_LINEAR)
        return Restoration(
            frame,
            # Inpainting under a true mask comes closer to the clean frame than what the network paints there.
            residual.inpainted(frame, residual.grown(mask)),
            residual.residual(frame, learned),
            mask,
        )

    def _assess_frames(
        self, waiting: Sequence[tuple[int, int, Frame]], opened: Sequence["Opened"], reader: TextReader | None
    ) -> None:
        """Frames (file, number, pixels) through the network in one go, and what is on them to their files."""
        together = Clock()
        with together.step("restore"):
            restored = self._network.restore([frame for _, _, frame in waiting])
        for (index, number, frame), result in zip(waiting, restored, strict=True):
            file = opened[index]
            file.clock.add("restore", together.milliseconds["restore"] / len(waiting))
            with file.clock.step("read"):
                assessed = self._assessed(number, frame, result, file)
            if reader is not None:
                with file.clock.step("text"):
                    assessed = self._read_text(reader, frame, assessed, file)
            file.assessed.append(assessed)

    def _read_text(self, reader: TextReader, frame: Frame, seen: AssessedFrame, file: "Opened") -> AssessedFrame:
        """The frame with what is written on it; one on which the network sees nothing written costs nothing."""
        if seen.scores[Kind.TEXT.value] < self._thresholds[Kind.TEXT].absent:
            return replace(seen, text_read=True)
        boxes = [mark.box for mark in seen.annotations if mark.kind is Kind.TEXT]
        file.read = reader.read(frame, boxes, file.read)
        reading = file.read.reading
        return replace(seen, annotations=with_text(seen.annotations, reading), text_read=reading.whole)

    def _assessed(self, number: int, frame: Frame, restored: Restored, file: "Opened") -> AssessedFrame:
        evidence = self._read(restored)
        rows, columns = frame.shape[:2]
        scale = columns / restored.frame.shape[1], rows / restored.frame.shape[0]
        mask = _enlarged(evidence.mask, (columns, rows), cv2.INTER_NEAREST)
        marks = tuple(_scaled(mark, scale) for mark in evidence.annotations)
        return AssessedFrame(
            number=number,
            rows=rows,
            columns=columns,
            annotations=overlaid(marks, mask, drawn_on(file.overlays, number, (rows, columns))),
            scores={kind.value: score for kind, score in evidence.scores.items()},
            text_read=False,
            mask=mask,
        )

    def _assessment(self, file: "Opened") -> Assessment:
        card = self._network.card
        return Assessment(
            sop_instance_uid=file.sop_instance_uid,
            number_of_frames=file.number_of_frames,
            frames=tuple(file.assessed),
            network=self._network.name,
            thresholds=card.digest,
            bands={kind: (limits.absent, limits.present) for kind, limits in self._thresholds.items()},
            provider=self._network.provider,
            milliseconds=file.clock.milliseconds,
        )

    def _read(self, restored: Restored) -> Evidence:
        return read_marks(restored.kinds, restored.residual, self._thresholds, self._calibration)


class Clock:
    """Milliseconds spent in each step."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``name``."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add(name, (perf_counter() - start) * 1000)

    def add(self, name: str, milliseconds: float) -> None:
        """Add to ``name``."""
        self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + milliseconds, 3)


@dataclass
class Opened:
    """A file under assessment."""

    clock: Clock
    sop_instance_uid: str = ""
    number_of_frames: int = 0
    overlays: Sequence[Overlay] = ()
    assessed: list[AssessedFrame] = field(default_factory=list)
    read: Read | None = None  # the text on the last of its frames that was read


@dataclass
class Begun:
    """Files whose frames are being decoded."""

    opened: list[Opened]
    frames: list[Iterator[tuple[int, Frame]]]  # of each file
    coming: "Sequence[Future[list[tuple[int, Frame]]]]" = ()


def _frames(source: Source, file: Opened, at_most: int) -> Iterator[tuple[int, Frame]]:
    """The frames of a file that are to be assessed, with their numbers."""
    with file.clock.step("open"):
        path = source if isinstance(source, Path) else source()
        facts = look(path)
        file.overlays = read_overlays(path) if facts.has_overlays else ()
    file.sop_instance_uid, file.number_of_frames = facts.sop_instance_uid, facts.frames
    numbers = spread(facts.frames, at_most)
    frames = iterate_frames(path, numbers)
    for number in numbers:
        with file.clock.step("decode"):
            frame = burned(next(frames), file.overlays, number)
        yield number, frame


def _all_frames(source: Source, file: Opened, at_most: int) -> list[tuple[int, Frame]]:
    return list(_frames(source, file, at_most))


def _result(frames: "Future[list[tuple[int, Frame]]]") -> Iterator[tuple[int, Frame]]:
    """The frames once they are there; what went wrong is raised at the first of them."""
    yield from frames.result()


def spread(frames: int, at_most: int) -> Sequence[int]:
    """Numbers (from 1) of at most ``at_most`` frames, each in the middle of an equal share of the cine."""
    count = min(frames, at_most)
    return [(2 * share + 1) * frames // (2 * count) + 1 for share in range(count)]


def reading(card: Card) -> tuple[dict[Kind, Thresholds], dict[Kind, Calibration]]:
    """How the output of weights is read. Raises `NetworkError` when their card does not say it."""
    if card.kinds != tuple(Kind):
        raise NetworkError(f"{card.name} knows other kinds of annotation than this version.", cure=_RETRAIN)
    try:
        return limits_of(card.thresholds), weights_of(card.calibration)
    except ValueError as error:
        raise NetworkError(f"The card of {card.name} cannot be used: {error}.", cure=_RETRAIN) from error


def _scaled(mark: Annotation, scale: tuple[float, float]) -> Annotation:
    """From the coordinates of a reduced frame back to those of the whole one."""
    across, down = scale
    if across == down == 1:
        return mark
    x, y, width, height = mark.box
    box = round(x * across), round(y * down), max(1, round(width * across)), max(1, round(height * down))
    return replace(mark, box=box, pixels=round(mark.pixels * across * down))


def _enlarged(image: Frame, size: tuple[int, int], interpolation: int) -> Frame:
    if (image.shape[1], image.shape[0]) == size:
        return image
    return cast(Frame, cv2.resize(image, size, interpolation=interpolation))


_RETRAIN = "Use weights that were exported for this version, or export them again."
