"""Static int8: convolutions in bytes, twice as fast on CPUs with VNNI, shipped only where no verdict changes.

Scales come from frames of the training side with synthetic marks; whether a verdict changes is asked of real annotated
frames. Where bytes everywhere change one, the layers next to the frame, whose errors are seen directly, stay in float.
"""

from __future__ import annotations

import json
import logging
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tomli_w
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from models import evaluate, recipe
from models.corruption import corrupt
from models.dataset import CleanFrame, clean_frames, read_frame, split
from models.errors import DataError, TrainingError
from models.served import Graph, Weights, reduced, verdict
from models.whole import beside, write_whole
from service.analyse.annotations import Kind
from service.analyse.padding import padded

QUANTISED = "model.int8.onnx"
KEPT_IN_FLOAT: dict[str, tuple[str, ...]] = {
    "no layer": (),
    "the head": ("/head.",),
    "the head and the first layer": ("/head.", "/stem.1/"),
    "all layers at half resolution": ("/head.", "/stem.", "/up.0/"),
}
"""What is tried, fastest first → parts of the names of the convolutions that stay in float."""

_CALIBRATION_SIDE = 800
_SEED = 7
_ROUNDS = 9
_TIMED = (608, 800)


@dataclass(frozen=True)
class Change:
    """A real frame whose verdict on a kind is another one in bytes."""

    file: str
    kind: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} {self.before} → {self.after}"


def quantise(weights: Path, data: Path, frames: int, tell: Callable[[str], None]) -> Path:
    """Write model.int8.onnx and its section of the card into the folder ``weights``.

    Raises `DataError` without annotated frames to compare verdicts on, and `TrainingError`, leaving the folder as it
    was, when every way of quantising changes a verdict.
    """
    served = Weights(weights, threads=1)
    labels = evaluate.labels_of(data)
    if labels is None:
        raise DataError(f"No labels.csv in {data}.", cure="Give a folder with real annotated frames to compare on.")
    training = _training_side(served, data)
    files = [row["file"] for row in evaluate.labelled(labels)]
    before = verdicts(served, served.graph, labels.parent, files)
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(weights / "model.onnx"), str(prepared), skip_symbolic_shape=True)
        for kept, parts in KEPT_IN_FLOAT.items():
            candidate = Path(folder) / QUANTISED
            _quantised(prepared, candidate, parts, Screens(training, frames, served.card["stride"]))
            plain = served.graph
            graph = Graph(
                candidate,
                plain.max_side,
                plain.stride,
                1,
                plain.second_look,
                plain.most_close_ups,
                plain.shares,
            )
            changed = changes(before, verdicts(served, graph, labels.parent, files), files)
            tell(f"{kept} in float: {len(changed)} of {len(files) * len(Kind)} verdicts change")
            for change in changed[:5]:
                tell(f"  {change}")
            if not changed:
                speed = speeds({"float32": served.graph, "int8": graph})
                return _ship(weights, candidate, kept, len(files), speed, tell)
    raise TrainingError(
        f"Every way of quantising {served.card['name']} changes verdicts on real frames; nothing was written.",
        cure="Serve the float weights: `model.onnx` stays as it is.",
    )


def _training_side(served: Weights, data: Path) -> tuple[CleanFrame, ...]:
    made = recipe.split_of(served.card)
    return split(clean_frames(data), made.held_out_sources, made.share, served.card["seed"]).training


class Screens(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime comes without types
    """Screens with synthetic marks, as the service would hand them to the graph."""

    def __init__(self, frames: Sequence[CleanFrame], count: int, stride: int) -> None:
        self._screens = self._drawn(frames, count, stride)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        return next(self._screens, None)

    def _drawn(
        self, frames: Sequence[CleanFrame], count: int, stride: int
    ) -> Iterator[dict[str, npt.NDArray[np.uint8]]]:
        rng = np.random.default_rng(_SEED)
        for _ in range(count):
            clean = read_frame(frames[int(rng.integers(len(frames)))].path)
            screen = reduced(corrupt(clean, rng).noisy, _CALIBRATION_SIDE)
            below, right = (-length % stride for length in screen.shape[:2])
            yield {"frame": padded(screen, below, right)[None]}


def _quantised(graph: Path, out: Path, parts: Sequence[str], screens: Screens) -> None:
    nodes = onnx.load(str(graph)).graph.node
    kept = [node.name for node in nodes if node.op_type == "Conv" and any(part in node.name for part in parts)]
    logging.getLogger().setLevel(logging.ERROR)  # it warns of the preparation that was made
    quantize_static(
        str(graph),
        str(out),
        screens,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        calibrate_method=CalibrationMethod.MinMax,
    )


def verdicts(served: Weights, graph: Graph, folder: Path, files: Sequence[str]) -> list[list[str]]:
    """What the card's thresholds say of every kind on every frame: absent, uncertain or present."""
    found = []
    for file in files:
        scores = served.read(graph(read_frame(folder / file))).scores
        found.append([verdict(scores[kind], served.thresholds[kind]) for kind in Kind])
    return found


def changes(before: Sequence[Sequence[str]], after: Sequence[Sequence[str]], files: Sequence[str]) -> list[Change]:
    return [
        Change(file, kind.value, one, other)
        for file, ones, others in zip(files, before, after, strict=True)
        for kind, one, other in zip(Kind, ones, others, strict=True)
        if one != other
    ]


def speeds(graphs: dict[str, Graph]) -> dict[str, float]:
    """Frames a second of each graph on one thread; they take turns, medians are compared."""
    frame = np.random.default_rng(_SEED).integers(0, 255, (*_TIMED, 3)).astype(np.uint8)
    taken: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(_ROUNDS):
        for name, graph in graphs.items():
            started = time.perf_counter()
            graph(frame)
            taken[name].append(time.perf_counter() - started)
    return {name: round(1 / median(some), 1) for name, some in taken.items()}


def _ship(
    weights: Path, candidate: Path, kept: str, frames: int, speed: dict[str, float], tell: Callable[[str], None]
) -> Path:
    card: dict[str, Any] = tomllib.loads((weights / "card.toml").read_text())
    graph = candidate.read_bytes()
    card["quantised"] = {
        "sha256": sha256(graph).hexdigest(),
        "kept_in_float": kept,
        "real_frames": frames,
        "verdicts_changed": 0,
        "frames_per_second": speed,
    }
    # The graph first: a card that names a graph which is not there would be refused.
    with beside(weights / QUANTISED) as part:
        part.write_bytes(graph)
    write_whole(weights / "card.toml", tomli_w.dumps(card))
    tell(json.dumps(card["quantised"], indent=1))
    return weights / QUANTISED
