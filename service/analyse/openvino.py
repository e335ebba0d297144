"""OpenVINO's CPU kernels, which compute in bfloat16 where the processor can: nearly twice as fast as in float32 there.

Taken on every processor with bfloat16 instructions, whoever made it; on the others ONNX Runtime's own kernels are as
fast. The package reports its use to its maker when its conversion tools are imported; nothing here needs them, and they
never are.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

_TALKATIVE = ("openvino.tools.ovc", "openvino_telemetry")


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
        core = _core()
        model = core.read_model(model=graph, weights=b"")
        if model.is_dynamic():
            model.reshape({"frame": [*size, 3]})
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
                "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
                # Each worker process would pin itself to the same first core.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self.inputs, self.outputs = (
            {name for port in ports for name in port.get_names()} for ports in (compiled.inputs, compiled.outputs)
        )
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(compiled.create_infer_request())

    def run(self, outputs: Sequence[str], given: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The ``outputs`` for these inputs by name, as arrays of the caller's own."""
        request = self._idle.get()
        try:
            request.infer(dict(given), share_inputs=True)
            return [np.array(request.get_tensor(name).data) for name in outputs]
        finally:
            self._idle.put(request)


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
