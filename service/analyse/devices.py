"""What the network may run on, and how it is opened there.

CUDA where a GPU is, with TensorRT on top of it where that is asked for; OpenVINO on CPUs that compute in bfloat16; ONNX
Runtime's own kernels everywhere else. With ``auto`` a device that is missing or fails makes way for the next one; a
device asked for by name never does in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime

from service.analyse import openvino
from service.errors import NetworkError

Device = Literal["tensorrt", "cuda", "openvino", "cpu"]
Wanted = Literal["auto", "cuda", "tensorrt", "cpu"]
Precision = Literal["fp32", "tf32", "fp16", "bf16"]

GPUS: tuple[Device, ...] = ("tensorrt", "cuda")
# A CPU gains nothing from a batch and keeps its caches without one.
BATCH: Mapping[Device, int] = {"tensorrt": 8, "cuda": 8, "openvino": 1, "cpu": 1}
# Instances a worker claims at once: what a batch records together costs the database, and Python, once.
CLAIMS: Mapping[Device, int] = {"tensorrt": 8, "cuda": 8, "openvino": 8, "cpu": 4}
OUTPUTS = ("restoration", "residual", "kinds")
NO_CUDA = "Install sonomark[gpu] and an NVIDIA driver, or set SONOMARK_PROVIDER=cpu."


@dataclass(frozen=True)
class Options:
    """How a device computes."""

    threads: int = 1  # of a CPU, for one caller
    callers: int = 1  # threads that use the network at once; OpenVINO gives each its own threads
    precision: Precision = "tf32"  # of a GPU, where halves need TensorRT; "fp32" is heeded by OpenVINO too
    graphs: bool = False  # the GPU replays a recorded graph for each size instead of launching kernels one by one
    cache: str = ""  # folder for engines that TensorRT has built


def devices() -> list[Device]:
    """What this machine offers, best first; TensorRT is never chosen by itself."""
    found: list[Device] = ["cpu"]
    if openvino.computes_in_bfloat16():
        found.insert(0, "openvino")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        found.insert(0, "cuda")
    return found


def choose_device(wanted: Wanted) -> Device:
    """``cpu`` means no GPU: OpenVINO, which computes on the CPU, may still be taken.

    Raises `NetworkError` when a GPU is asked for and there is none.
    """
    there = devices()
    if wanted in GPUS and "cuda" not in there:
        raise NetworkError("CUDA was asked for and is not there.", cure=NO_CUDA)
    if wanted == "tensorrt":
        if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
            raise NetworkError("TensorRT was asked for and is not there.", cure="Set SONOMARK_PROVIDER=cuda.")
        return "tensorrt"
    return next(device for device in there if device != "cuda" or wanted != "cpu")


def open_session(
    graph: bytes, device: Device, chosen: Options, size: tuple[int, ...] = ()
) -> onnxruntime.InferenceSession | openvino.Compiled:
    """The graph on a device; OpenVINO compiles it for a ``size`` (frames, height, width).

    Raises the runtimes' own exceptions, or `NetworkError` when a GPU does not start.
    """
    if device == "openvino":
        frames, rows, columns = size
        return openvino.Compiled(
            graph,
            (frames, rows, columns),
            threads=chosen.threads * chosen.callers,
            streams=chosen.callers,
            bfloat16=chosen.precision != "fp32",
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = chosen.threads
    # Workers share the cores: a thread that waits by spinning takes them from another that works.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device in GPUS:
        onnxruntime.preload_dlls()  # CUDA and cuDNN come as wheels, where the loader does not look
    session = onnxruntime.InferenceSession(graph, options, providers=providers(device, chosen))
    if device in GPUS and "CUDAExecutionProvider" not in session.get_providers():
        raise NetworkError("CUDA was asked for and does not start.", cure=NO_CUDA)
    return session


def providers(device: Device, chosen: Options) -> list[str | tuple[str, dict[str, str]]]:
    """ONNX Runtime's execution providers for a device, each with its options; the CPU takes what they do not."""
    cuda: tuple[str, dict[str, str]] = (
        "CUDAExecutionProvider",
        {
            "use_tf32": "0" if chosen.precision == "fp32" else "1",
            "enable_cuda_graph": str(int(chosen.graphs and device == "cuda")),
            "cudnn_conv_algo_search": "EXHAUSTIVE",
        },
    )
    match device:
        case "cuda":
            return [cuda, "CPUExecutionProvider"]
        case "tensorrt":
            tensorrt = {
                "trt_fp16_enable": str(int(chosen.precision == "fp16")),
                "trt_bf16_enable": str(int(chosen.precision == "bf16")),
                "trt_cuda_graph_enable": str(int(chosen.graphs)),
                "trt_engine_cache_enable": str(int(bool(chosen.cache))),
                "trt_engine_cache_path": chosen.cache,
            }
            return [("TensorrtExecutionProvider", tensorrt), cuda, "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


class Bound:
    """One size's buffers on a device, used again for every batch.

    Nothing is allocated between batches, one copy goes in and one comes out, and a recorded graph finds its addresses
    unchanged. May be used from several threads; they take turns.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        size: tuple[int, int, int],
        kinds: int,
        memory: Literal["cuda", "cpu"],
        graph_id: int | None = None,
    ) -> None:
        frames, rows, columns = size
        shapes = {
            "restoration": (frames, rows, columns, 3),
            "residual": (frames, rows, columns),
            "kinds": (frames, kinds, rows, columns),
        }
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._session = session
        self._frame = value((frames, rows, columns, 3), np.uint8, memory, 0)
        self._answers = [value(shapes[name], np.uint8, memory, 0) for name in OUTPUTS]
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("frame", self._frame)
        for name, answer in zip(OUTPUTS, self._answers, strict=True):
            self._binding.bind_ortvalue_output(name, answer)
        self._options = onnxruntime.RunOptions()
        if graph_id is not None:
            self._options.add_run_config_entry("gpu_graph_id", str(graph_id))
        self._lock = Lock()

    def run(self, padded: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
        """Restoration, residual and kinds of frames of this size; arrays of the caller's own."""
        with self._lock:
            self._frame.update_inplace(padded)
            self._session.run_with_iobinding(self._binding, self._options)
            return [np.array(answer.numpy()) for answer in self._answers]
