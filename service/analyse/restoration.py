"""The network: a folder of weights, run by ONNX Runtime on the best device there is.

CUDA where a GPU is, OpenVINO's plugin on the CPUs it takes (Intel's), ONNX Runtime's own kernels everywhere else. The
answer is the same within rounding; which device gave it is recorded with every analysis.
"""

import json
import os
import tomllib
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from service import logs
from service.errors import NetworkError
from service.settings import WEIGHTS, Settings

log = logs.get(__name__)

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB
Plane = npt.NDArray[np.uint8]  # (rows, columns)
Planes = npt.NDArray[np.uint8]  # (kinds, rows, columns)
Device = Literal["cuda", "openvino", "cpu"]

# Sessions compiled for one size each, where a device wants that; a hospital's devices send a handful of sizes.
SIZES_KEPT = 6
DIMENSIONS = ("frames", "height", "width")


@dataclass(frozen=True)
class Restored:
    """What the network made of one frame.

    All planes have the size of ``frame``, which is the frame given unless that was larger than the network takes.
    """

    frame: Frame
    restoration: Frame
    residual: Plane  # |frame - restoration|, the largest of the channels
    kinds: Planes  # probability x 255 of every kind


@dataclass(frozen=True)
class Card:
    """What the weights are and how their output is to be read."""

    name: str
    version: str
    sha256: str
    kinds: tuple[str, ...]
    stride: int
    max_side: int
    thresholds: Mapping[str, Mapping[str, Any]]
    calibration: Mapping[str, Mapping[str, Any]]

    @property
    def identity(self) -> str:
        """Names the weights for good: ``name@digest``."""
        return f"{self.name}@{self.sha256[:12]}"

    @property
    def digest(self) -> str:
        """Names thresholds and calibration, which decide what an output means."""
        reading = json.dumps([self.thresholds, self.calibration], sort_keys=True)
        return sha256(reading.encode()).hexdigest()[:12]

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Raises `NetworkError` when the card is missing or incomplete."""
        try:
            card = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(
                name=card["name"],
                version=str(card["version"]),
                sha256=card["sha256"],
                kinds=tuple(card["kinds"]),
                stride=int(card.get("stride", 32)),
                max_side=int(card.get("max_side", 2048)),
                thresholds=card["thresholds"],
                calibration=card["calibration"],
            )
        except FileNotFoundError:
            raise NetworkError(f"There is no network at {path.parent}.", cure=_CURE) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise NetworkError(f"The card {path} cannot be used ({error!r}).", cure=_CURE) from error


class Network:
    """Weights in memory, ready to restore frames. May be used from several threads."""

    def __init__(self, folder: Path, device: Device = "cpu", threads: int = 1) -> None:
        """Raises `NetworkError` when the weights are missing, damaged, or the device will not take them."""
        self.card = Card.read(folder / "card.toml")
        self._graph = _graph(folder / "model.onnx", self.card)
        self._threads = threads
        self._sessions: OrderedDict[tuple[int, ...], onnxruntime.InferenceSession] = OrderedDict()
        self._lock = Lock()
        self.provider: Device = device
        if device == "openvino":
            try:
                self._session((1, 2 * self.card.stride, 2 * self.card.stride))
            except NetworkError as error:
                log.warning("OpenVINO refused the network, the plain CPU takes it", cause=error.what)
                self.provider = "cpu"
        self._check_contract()

    @property
    def batch(self) -> int:
        """How many frames of one size this device likes at once."""
        return BATCH[self.provider]

    @property
    def name(self) -> str:
        """``name@digest`` of the weights."""
        return self.card.identity

    def restore(self, frames: Sequence[Frame]) -> list[Restored]:
        """Restore RGB frames of any size; those of one size go through the network together."""
        reduced = [_reduced(frame, self.card.max_side) for frame in frames]
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, frame in enumerate(reduced):
            by_size[frame.shape].append(index)
        restored: dict[int, Restored] = {}
        for indices in by_size.values():
            for batch in _batches(indices, at_most=self.batch):
                restored.update(zip(batch, self._run([reduced[index] for index in batch]), strict=True))
        return [restored[index] for index in range(len(frames))]

    def _run(self, frames: list[Frame]) -> list[Restored]:
        """Frames of one size: padded to the network's stride by repeating the edge, and cropped back."""
        rows, columns = frames[0].shape[:2]
        stride = self.card.stride
        below, right = -rows % stride, -columns % stride
        padded = np.stack([cv2.copyMakeBorder(frame, 0, below, 0, right, cv2.BORDER_REPLICATE) for frame in frames])
        session = self._session(padded.shape[:3])
        restoration, residual, kinds = session.run(["restoration", "residual", "kinds"], {"frame": padded})
        return [
            Restored(
                frame,
                np.ascontiguousarray(restoration[index, :rows, :columns]),
                np.ascontiguousarray(residual[index, :rows, :columns]),
                np.ascontiguousarray(kinds[index, :, :rows, :columns]),
            )
            for index, frame in enumerate(frames)
        ]

    def _session(self, size: tuple[int, ...]) -> onnxruntime.InferenceSession:
        """OpenVINO compiles for one size and is then twice as fast; the others take any."""
        key = size if self.provider == "openvino" else ()
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._open(key)
            self._sessions.move_to_end(key)
            while len(self._sessions) > SIZES_KEPT:
                self._sessions.popitem(last=False)
            return self._sessions[key]

    def _open(self, size: tuple[int, ...]) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._threads
        # Workers share the cores: a thread that waits by spinning takes them from another that works.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[str] | None = ["CPUExecutionProvider"]
        if self.provider == "cuda":
            providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        elif self.provider == "openvino":
            for name, length in zip(DIMENSIONS, size, strict=True):
                options.add_free_dimension_override_by_name(name, length)
            properties = {"CPU": {"INFERENCE_NUM_THREADS": self._threads}}
            options.add_provider_for_devices([_openvino_cpu()], {"load_config": json.dumps(properties)})
            providers = None
        try:
            session = onnxruntime.InferenceSession(self._graph, options, providers=providers)
        except Exception as error:  # onnxruntime's own classes have no common base
            raise NetworkError(
                f"ONNX Runtime cannot run {self.card.name} on {self.provider} ({type(error).__name__}).", cure=_CURE
            ) from error
        if self.provider == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
            raise NetworkError("CUDA was asked for and does not start.", cure=_NO_CUDA)
        return session

    def _check_contract(self) -> None:
        session = self._session((1, 2 * self.card.stride, 2 * self.card.stride))
        inputs, outputs = ({node.name for node in nodes} for nodes in (session.get_inputs(), session.get_outputs()))
        if inputs != {"frame"} or not {"restoration", "residual", "kinds"} <= outputs:
            raise NetworkError(f"The graph of {self.card.name} has other inputs or outputs than expected.", cure=_CURE)


def load_network(settings: Settings, threads: int | None = None, callers: int = 1) -> Network:
    """The network that the settings name, on the device they allow, for ``callers`` threads that use it at once.

    On the plain CPU each of them computes on its share of the cores, which is faster than all taking turns on all.
    Raises `NetworkError` when there is no such network or no such device.
    """
    named = Path(settings.network)
    folder = named if named.is_dir() else WEIGHTS / settings.network
    device = choose_device(settings.provider)
    chosen = threads or settings.threads or os.cpu_count() or 1
    return Network(folder, device, max(1, chosen // callers) if device == "cpu" else chosen)


def choose_device(wanted: Literal["auto", "cuda", "cpu"]) -> Device:
    """``cpu`` means no GPU: OpenVINO, which computes on the CPU, may still be taken."""
    there = devices()
    if wanted == "cuda" and "cuda" not in there:
        raise NetworkError("CUDA was asked for and is not there.", cure=_NO_CUDA)
    return next(device for device in there if device != "cuda" or wanted != "cpu")


def devices() -> list[Device]:
    """What this machine offers, best first."""
    found: list[Device] = ["cpu"]
    if _openvino_cpu() is not None:
        found.insert(0, "openvino")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        found.insert(0, "cuda")
    return found


def _openvino_cpu() -> Any:
    """OpenVINO's CPU device, or None: the plugin is not installed, or offers none on this maker's processors."""
    try:
        import onnxruntime_ep_openvino as plugin
    except ImportError:
        return None
    if not _registered:
        onnxruntime.register_execution_provider_library("openvino", plugin.get_library_path())
        _registered.append("openvino")
    offered = [device for device in onnxruntime.get_ep_devices() if device.ep_name == plugin.get_ep_name()]
    return next((device for device in offered if device.ep_metadata.get("ov_device") == "CPU"), None)


def _graph(path: Path, card: Card) -> bytes:
    """The graph's bytes, which are exactly those its card describes; from memory it can refer to no other file."""
    try:
        graph = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"The weights {path} cannot be read.", cure=_CURE) from error
    if sha256(graph).hexdigest() != card.sha256:
        raise NetworkError(f"The weights {path} are not those their card describes.", cure=_CURE)
    return graph


def _reduced(frame: Frame, max_side: int) -> Frame:
    """By area averaging no larger than the network was made for."""
    scale = max_side / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
    return cast(Frame, cv2.resize(frame, size, interpolation=cv2.INTER_AREA))


def _batches(indices: list[int], at_most: int) -> list[list[int]]:
    return [indices[start : start + at_most] for start in range(0, len(indices), at_most)]


# A CPU gains nothing from a batch and keeps its caches without one.
BATCH: Mapping[Device, int] = {"cuda": 8, "openvino": 1, "cpu": 1}
_registered: list[str] = []
_CURE = "Set SONOMARK_NETWORK to a name under models/weights or to a folder with model.onnx and its card.toml."
_NO_CUDA = "Install sonomark[gpu] and an NVIDIA driver, or set SONOMARK_PROVIDER=cpu."
