"""Exported weights, run as the service runs them: evaluation and calibration measure what will be served."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from models.errors import DataError
from service.analyse import close_ups, looks
from service.analyse.annotations import Evidence, Kind, Thresholds, limits_of, read_marks, weights_of
from service.analyse.close_ups import CloseUp
from service.analyse.padding import padded

Frame = npt.NDArray[np.uint8]
_EXPORT_AGAIN = "Export the weights again."
_OUR_EXPORT = "Take weights that `python -m models export` of this version wrote: their card says everything."


class Shares(NamedTuple):
    """How much the look from afar and close-ups count, for each kind."""

    far: Sequence[float]
    close: Sequence[float]


@dataclass(frozen=True)
class Output:
    """restoration uint8 (H, W, 3), residual uint8 (H, W), kinds uint8 (K, H, W), and the frame they belong to: the
    frame given, reduced where it was larger than the network's longest side; ``far`` are the kinds as the look from
    afar shows them, uint8 (K, h, w), and ``closely`` as each close-up does, where they are not part of them yet."""

    frame: Frame
    restoration: Frame
    residual: Frame
    kinds: Frame
    far: Frame | None = None
    closely: tuple[tuple[CloseUp, Frame], ...] | None = None

    def together(self, shares: Shares) -> Output:
        """What all looks together say."""
        kinds = self.kinds if self.far is None else looks.blended(self.kinds, self.far, shares.far)
        if self.closely is not None:
            kinds = close_ups.blended(kinds, self.closely, shares.close)
        return replace(self, kinds=kinds, far=None, closely=None)


class Graph:
    """An exported graph behind padding to its stride and reduction to its longest side.

    ``second_look`` is the scale of its look from afar, ``most_close_ups`` how many places it sees enlarged, 0 for none,
    and ``shares`` how much either counts for each kind; without them all looks are given apart, for calibration to
    weigh.
    """

    def __init__(
        self,
        path: Path,
        max_side: int,
        stride: int = 32,
        threads: int = 2,
        second_look: float = 0.0,
        most_close_ups: int = 0,
        shares: Shares | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.max_side, self.stride = max_side, stride
        self.second_look, self.most_close_ups, self.shares = second_look, most_close_ups, shares

    def __call__(self, frame: Frame) -> Output:
        frame = reduced(frame, self.max_side)
        output = self._look(frame)
        if self.second_look:
            far = self._look(looks.from_afar(frame, self.second_look)).kinds
            output = replace(output, far=far)
        if self.most_close_ups:
            places = close_ups.places(output.kinds, list(Kind), self.most_close_ups)
            closely = tuple((place, self._look(close_ups.enlarged(frame, place)).kinds) for place in places)
            output = replace(output, closely=closely)
        return output if self.shares is None else output.together(self.shares)

    def _look(self, frame: Frame) -> Output:
        height, width = frame.shape[:2]
        whole = padded(frame, -height % self.stride, -width % self.stride)
        restoration, residual, kinds = self._session.run(None, {"frame": whole[None]})
        return Output(
            frame,
            restoration[0, :height, :width],
            np.ascontiguousarray(residual[0, :height, :width]),
            np.ascontiguousarray(kinds[0, :, :height, :width]),
        )


class Weights:
    """A folder with ``model.onnx`` and ``card.toml``. Raises `DataError` when they do not belong together."""

    def __init__(self, folder: Path, threads: int = 2) -> None:
        self.card, graph = card_of(folder), folder / "model.onnx"
        try:
            self.thresholds, self.calibration = limits_of(self.card["thresholds"]), weights_of(self.card["calibration"])
            second_look = looks.scale_of(self.card.get("second_look", 0.0))
            most_close_ups = close_ups.count_of(self.card.get("close_ups", 0))
            max_side, stride = int(self.card["max_side"]), int(self.card["stride"])
        except KeyError as lacking:
            raise DataError(f"The card of {folder} has no {lacking}.", cure=_EXPORT_AGAIN) from lacking
        except (TypeError, ValueError, AttributeError) as wrong:
            raise DataError(f"The card of {folder} cannot be used: {wrong}.", cure=_EXPORT_AGAIN) from wrong
        limits = [self.thresholds[kind] for kind in Kind]
        shares = Shares([each.far for each in limits], [each.close for each in limits])
        self.graph = Graph(graph, max_side, stride, threads, second_look, most_close_ups, shares)

    def read(self, output: Output) -> Evidence:
        return read_marks(output.kinds, output.residual, self.thresholds, self.calibration)


def verdict(score: float, limits: Thresholds) -> str:
    """What the thresholds of a kind say of its presence score."""
    if score >= limits.present:
        return "present"
    return "absent" if score < limits.absent else "uncertain"


class Card(dict[str, Any]):
    """The entries of a ``card.toml``. To ask for one that it has not, as the cards of other programs have few, raises
    `DataError`."""

    def __init__(self, folder: Path, entries: Mapping[str, Any]) -> None:
        super().__init__(entries)
        self._folder = folder

    def __missing__(self, name: str) -> Any:
        raise DataError(f"The card of {self._folder} has no {name!r}.", cure=_OUR_EXPORT)

    def require(self, *names: str) -> None:
        """Raise `DataError` unless all of these entries are there."""
        for name in names:
            self[name]


def card_of(folder: Path) -> Card:
    """The card of a weights folder. Raises `DataError` when there is none or the graph beside it is another one."""
    graph = folder / "model.onnx"
    try:
        card = tomllib.loads((folder / "card.toml").read_text())
        fits = sha256(graph.read_bytes()).hexdigest() == card["sha256"]
    except (OSError, ValueError, KeyError) as broken:
        raise DataError(
            f"{folder} holds no weights that can be used ({type(broken).__name__}).",
            cure="Give a folder with model.onnx and its card.toml.",
        ) from broken
    if not fits:
        raise DataError(f"{graph} is not the file its card describes.", cure=_EXPORT_AGAIN)
    return Card(folder, card)


def reduced(frame: Frame, max_side: int) -> Frame:
    """The frame, by area averaging no larger than ``max_side`` pixels on its longer side."""
    height, width = frame.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)
