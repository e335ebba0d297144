"""OpenVINO's CPU kernels, which compute in bfloat16 where the processor can: nearly twice as fast as in float32 there.

Taken on every processor with bfloat16 instructions, whoever made it; on the others ONNX Runtime's own kernels are as
fast. The package reports its use to its maker when its conversion tools are imported; nothing here needs them, and they
never are.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from service.analyse.pixel_shuffle import PIXELS, SIDE, shuffled, shuffled_colours, unshuffled

_TALKATIVE = ("openvino.tools.ovc", "openvino_telemetry")
_REORDERING = {"Transpose", "Reshape"}
# Each worker process would pin itself to the same first core, for good.
_UNPINNED = {"ENABLE_CPU_PINNING": False}
_EXACT = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", **_UNPINNED}


class Compiled:
    """A graph compiled for frames of one size; it is asked as a session of ONNX Runtime is.

    May be used from as many threads at once as it has ``streams``; more take turns.
    """

    def __init__(
        self, graph: bytes, size: tuple[int, int, int], *, threads: int, streams: int, bfloat16: bool = True
    ) -> None:
        """``size`` is frames, rows and columns; ``threads`` are those of all ``streams`` together.

        Raises OpenVINO's RuntimeError for a graph that it does not take.
        """
        model = _read(graph, size)
        self.inputs, self.outputs = (
            {name for port in ports for name in port.get_names()} for ports in (model.inputs, model.outputs)
        )
        self._between = _between_shuffles(model) if _shuffles(graph) else None
        compiled = _core().compile_model(
            self._between.model if self._between else model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
                **_UNPINNED,
            },
        )
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def run(self, outputs: Sequence[str], given: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The ``outputs`` for these inputs by name, as arrays of the caller's own."""
        request = self._idle.get()
        try:
            if self._between is None:
                request.infer(dict(given), share_inputs=True)
                return [np.array(request.get_tensor(name).data) for name in outputs]
            request.infer({0: unshuffled(given["frame"])}, share_inputs=True)
            return [self._between.whole(name, request) for name in outputs]
        finally:
            self._idle.put(request)


@dataclass(frozen=True)
class _Between:
    """The part of a graph that computes at half resolution, between pixel unshuffle and pixel shuffles.

    OpenVINO transposes bytes one by one: done here instead, the shuffles take 1 ms of a frame and not 6.
    """

    model: Any
    outputs: tuple[str, ...]

    def whole(self, name: str, request: Any) -> npt.NDArray[Any]:
        """An output at full resolution, in the shape that the graph gives it."""
        planes = request.get_output_tensor(self.outputs.index(name)).data
        if name == "restoration":
            return shuffled_colours(planes)
        full = shuffled(planes)
        return full[:, 0] if name == "residual" else full


@lru_cache(maxsize=4)
def _shuffles(graph: bytes) -> bool:
    """Whether the graph begins and ends with just those shuffles: seen in its shapes, and proven on a frame."""
    size = 1, 64, 96
    between = _between_shuffles(_read(graph, size))
    if between is None:
        return False
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    expected = _core().compile_model(_read(graph, size), "CPU", _EXACT).create_infer_request()
    expected.infer({0: frame}, share_inputs=True)
    halves = _core().compile_model(between.model, "CPU", _EXACT).create_infer_request()
    halves.infer({0: unshuffled(frame)}, share_inputs=True)
    # Rounding may differ by a level where operations are joined in another way; another order differs everywhere.
    return all(
        np.abs(between.whole(name, halves).astype(int) - expected.get_tensor(name).data).max() <= 1
        for name in between.outputs
    )


def _between_shuffles(model: Any) -> _Between | None:
    """Cut the model to what lies between its shuffles, which are transpositions and reshapings of bytes."""
    from openvino import Model, opset8

    (frame,) = model.get_parameters()
    count, height, width, colours = frame.get_output_shape(0)
    half = height // SIDE, width // SIDE
    first = _behind_shuffle(frame.output(0))
    last = {name: _before_shuffle(port) for port in model.outputs for name in port.get_names()}
    shapes = [(tuple(port.get_shape()), port.get_element_type().get_type_name()) for port in (first, *last.values())]
    if shapes[0] != ((count, PIXELS * colours, *half), "u8") or not all(
        kind == "u8" and (shape[0], *shape[2:]) == (count, *half) and shape[1] % PIXELS == 0
        for shape, kind in shapes[1:]
    ):
        return None
    planes = opset8.parameter(shapes[0][0], np.uint8)
    for consumer in first.get_target_inputs():
        consumer.replace_source_output(planes.output(0))
    return _Between(Model([opset8.result(port) for port in last.values()], [planes]), tuple(last))


def _behind_shuffle(port: Any) -> Any:
    """The first value behind ``port`` that is more than its bytes in another order."""
    while True:
        consumers = [one.get_node() for one in port.get_target_inputs()]
        consumers = [node for node in consumers if node.get_type_name() != "ShapeOf"]  # shapes are known by now
        if len(consumers) != 1 or consumers[0].get_type_name() not in _REORDERING:
            return port
        port = consumers[0].output(0)


def _before_shuffle(port: Any) -> Any:
    """The last value before the result ``port`` that is more than another one's bytes in another order."""
    source = port.get_node().input_value(0)
    while source.get_node().get_type_name() in _REORDERING:
        source = source.get_node().input_value(0)
    return source


def _read(graph: bytes, size: tuple[int, int, int]) -> Any:
    model = _core().read_model(model=graph, weights=b"")
    if model.is_dynamic():
        model.reshape({"frame": [*size, 3]})
    return model


def computes_in_bfloat16() -> bool:
    """Whether OpenVINO is installed and this processor has bfloat16 instructions."""
    core = _core()
    return core is not None and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _core() -> Any:
    """OpenVINO's runtime, or None where it is not installed."""
    with _starting:
        return _started()


@lru_cache
def _started() -> Any:
    for module in _TALKATIVE:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # an import of it then fails, and is forgiven
    try:
        from openvino import Core, Tensor
    except ImportError:
        return None
    # Its bindings look for NumPy at the first array they meet; two threads that bring one at once wait for each other
    # for ever, one holding the interpreter's lock and the other that of the bindings.
    np.array(Tensor(np.zeros(1, np.uint8)).data)
    return Core()


_starting = Lock()
