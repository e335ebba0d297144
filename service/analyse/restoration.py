"""The network: a folder of weights, run on the best device there is.

The answer is the same within rounding on each of them; which device gave it is recorded with every analysis.
"""

import json
import os
import tomllib
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime

from service import logs
from service.analyse import close_ups, looks, openvino
from service.analyse.devices import BATCH, GPUS, OUTPUTS, Bound, Device, Options, choose_device, open_session
from service.analyse.padding import padded
from service.errors import NetworkError
from service.settings import WEIGHTS, Settings

log = logs.get(__name__)

Frame = npt.NDArray[np.uint8]  # (rows, columns, 3) RGB
Plane = npt.NDArray[np.uint8]  # (rows, columns)
Planes = npt.NDArray[np.uint8]  # (kinds, rows, columns)
T = TypeVar("T")
Session: TypeAlias = onnxruntime.InferenceSession | openvino.Compiled

# Sessions for one size each, where a device wants that, at some 50 MB and a fifth of a second to make; a hospital's
# machines send a dozen sizes, and a card may want each looked at twice.
SIZES_KEPT = 24
# Buffers for one size and number of frames each: the last batch of a burst is seldom full.
BUFFERS_KEPT = 24


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
    second_look: float = 0.0
    """Scale of the look from afar; 0 where the weights are made for one look."""
    close_ups: int = 0
    """How many places of a frame are seen once more, enlarged, at most."""
    quantised: str = ""
    """Digest of ``model.int8.onnx``, where one was found to change no verdict; the plain CPU then runs that."""

    @property
    def identity(self) -> str:
        """Names the weights for good: ``name@digest``."""
        return f"{self.name}@{self.sha256[:12]}"

    @property
    def digest(self) -> str:
        """Names thresholds, calibration and further looks, which decide what an output means."""
        looks_again = [self.second_look] if self.second_look else []
        closely = [{"close_ups": self.close_ups}] if self.close_ups else []
        reading = json.dumps([self.thresholds, self.calibration, *looks_again, *closely], sort_keys=True)
        return sha256(reading.encode()).hexdigest()[:12]

    @property
    def far_shares(self) -> list[float]:
        """How much the look from afar counts, for each of ``kinds``."""
        return [float(self.thresholds[kind].get("far", 0.0)) for kind in self.kinds]

    @property
    def close_shares(self) -> list[float]:
        """How much close-ups count, for each of ``kinds``."""
        return [float(self.thresholds[kind].get("close", 0.0)) for kind in self.kinds]

    @classmethod
    def read(cls, path: Path) -> "Card":
        """Raises `NetworkError` when the card is missing, incomplete or says what cannot be."""
        try:
            card = tomllib.loads(path.read_text(encoding="utf-8"))
            read = cls(
                name=card["name"],
                version=str(card["version"]),
                sha256=card["sha256"],
                kinds=tuple(card["kinds"]),
                stride=int(card.get("stride", 32)),
                max_side=int(card.get("max_side", 2048)),
                thresholds=card["thresholds"],
                calibration=card["calibration"],
                second_look=looks.scale_of(card.get("second_look", 0.0)),
                close_ups=close_ups.count_of(card.get("close_ups", 0)),
                quantised=card.get("quantised", {}).get("sha256", ""),
            )
            if read.stride < 1 or read.max_side < read.stride:
                raise ValueError(f"stride is {read.stride} and max_side {read.max_side}, which holds no frame")
            for kind in read.kinds:
                for look in ("far", "close"):
                    looks.share_of(look, read.thresholds[kind].get(look, 0.0))
            return read
        except FileNotFoundError:
            raise NetworkError(f"There is no network at {path.parent}.", cure=_CURE) from None
        except KeyError as lacking:
            raise NetworkError(f"The card {path} cannot be used: it has no {lacking}.", cure=_MEND_CARD) from lacking
        except (OSError, TypeError, ValueError, AttributeError) as error:
            raise NetworkError(f"The card {path} cannot be used: {error}.", cure=_MEND_CARD) from error


class Network:
    """Weights in memory, ready to restore frames. May be used from several threads."""

    def __init__(
        self, folder: Path, device: Device = "cpu", options: Options | None = None, *, may_fall_back: bool = False
    ) -> None:
        """``may_fall_back``: a GPU that does not start, or fails later, makes way for the CPU.

        Raises `NetworkError` when the weights are missing, damaged, or the device will not take them.
        """
        self.card = Card.read(folder / "card.toml")
        self._graph = _graph(folder / "model.onnx", self.card.sha256)
        self._in_bytes = _graph(folder / "model.int8.onnx", self.card.quantised) if self.card.quantised else None
        self._options = options or Options()
        self._may_fall_back = may_fall_back
        self._sessions: OrderedDict[tuple[int, ...], Session] = OrderedDict()
        self._bound: OrderedDict[tuple[int, ...], Bound] = OrderedDict()
        self._sizes_seen = 0
        self._lock = Lock()
        self.provider: Device = device
        if device != "cpu":
            try:
                self._session(self._smallest)
            except NetworkError as error:
                if device in GPUS and not may_fall_back:
                    raise
                self._fall_back(error)
        self._check_contract()

    @property
    def batch(self) -> int:
        """How many frames of one size this device likes at once."""
        return BATCH[self.provider]

    @property
    def name(self) -> str:
        """``name@digest`` of the weights, with ``+int8`` where their quantised form is run."""
        in_bytes = self.provider == "cpu" and self._in_bytes is not None
        return f"{self.card.identity}+int8" if in_bytes else self.card.identity

    def restore(self, frames: Sequence[Frame]) -> list[Restored]:
        """Restore RGB frames of any size; those of one size go through the network together."""
        reduced = [_reduced(frame, self.card.max_side) for frame in frames]
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, frame in enumerate(reduced):
            by_size[frame.shape].append(index)
        restored: dict[int, Restored] = {}
        for indices in by_size.values():
            for batch in _batches(indices, at_most=self.batch):
                restored.update(zip(batch, self._looked_at([reduced[index] for index in batch]), strict=True))
        return [restored[index] for index in range(len(frames))]

    def warm_up(self, rows: int, columns: int) -> None:
        """Pay now for what the first frame of this size would otherwise wait for."""
        self._looked_at([np.zeros((rows, columns, 3), np.uint8)])
        if self.card.close_ups:
            self._infer(np.zeros((1, close_ups.ENLARGED, close_ups.ENLARGED, 3), np.uint8), ("kinds",))

    def _looked_at(self, frames: list[Frame]) -> list[Restored]:
        """Frames of one size, as often as the card says."""
        near = self._run(frames)
        kinds = [each.kinds for each in near]
        if self.card.second_look:
            kinds = self._from_afar(frames, kinds)
        if self.card.close_ups:
            kinds = self._closely(near, kinds)
        return [replace(each, kinds=planes) for each, planes in zip(near, kinds, strict=True)]

    def _from_afar(self, frames: list[Frame], kinds: list[Planes]) -> list[Planes]:
        """With what a look at all of them from further away says."""
        distant = [looks.from_afar(frame, self.card.second_look) for frame in frames]
        (far,) = self._infer(self._padded(distant), ("kinds",))
        rows, columns = distant[0].shape[:2]
        shares = self.card.far_shares
        return [
            looks.blended(planes, answer[:, :rows, :columns], shares) for planes, answer in zip(kinds, far, strict=True)
        ]

    def _closely(self, near: list[Restored], kinds: list[Planes]) -> list[Planes]:
        """With what close-ups say of the places where the first look noticed something thin."""
        places = [close_ups.places(each.kinds, self.card.kinds, self.card.close_ups) for each in near]
        squares = [
            close_ups.enlarged(each.frame, place) for each, some in zip(near, places, strict=True) for place in some
        ]
        answers: list[Planes] = []
        for batch in _batches(list(range(len(squares))), at_most=self.batch):
            (seen,) = self._infer(np.stack([squares[index] for index in batch]), ("kinds",))
            answers += list(seen)
        following, shares = iter(answers), self.card.close_shares
        return [
            close_ups.blended(planes, list(zip(some, following)), shares)  # noqa: B905 - as many as this frame has
            for planes, some in zip(kinds, places, strict=True)
        ]

    def _run(self, frames: list[Frame]) -> list[Restored]:
        """Frames of one size, padded and cropped back."""
        rows, columns = frames[0].shape[:2]
        restoration, residual, kinds = self._infer(self._padded(frames), OUTPUTS)
        return [
            Restored(
                frame,
                restoration[index, :rows, :columns],
                residual[index, :rows, :columns],
                kinds[index, :, :rows, :columns],
            )
            for index, frame in enumerate(frames)
        ]

    def _padded(self, frames: list[Frame]) -> Frame:
        """Frames of one size, up to the network's stride."""
        rows, columns = frames[0].shape[:2]
        below, right = -rows % self.card.stride, -columns % self.card.stride
        return np.stack([padded(frame, below, right) for frame in frames])

    def _infer(self, whole: Frame, outputs: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Raises `NetworkError` when a GPU fails that may not make way for the CPU."""
        while True:
            on = self.provider
            try:
                if on in GPUS:
                    answers = dict(zip(OUTPUTS, self._on_gpu(whole.shape[:3]).run(whole), strict=True))
                    return [answers[name] for name in outputs]
                return cast(list[npt.NDArray[Any]], self._session(whole.shape[:3]).run(outputs, {"frame": whole}))
            except NetworkError:
                raise
            except Exception as error:  # onnxruntime's own classes have no common base
                if on not in GPUS:
                    raise
                failure = NetworkError(f"The GPU failed ({type(error).__name__}).", cure=_GPU_FAILED)
                if not self._may_fall_back:
                    raise failure from error
                self._fall_back(failure)

    def _fall_back(self, error: NetworkError) -> None:
        log.warning("the CPU takes the network over", device=self.provider, cause=error.what, cure=error.cure)
        with self._lock:
            self._sessions.clear()
            self._bound.clear()
            self.provider = "cpu"

    def _on_gpu(self, size: tuple[int, ...]) -> Bound:
        """The buffers of one size; the session is one for all sizes."""
        session = cast(onnxruntime.InferenceSession, self._session(size))
        with self._lock:
            if size not in self._bound:
                frames, rows, columns = size
                self._sizes_seen += 1
                graph_id = self._sizes_seen if self._options.graphs else None
                kinds = len(self.card.kinds)
                self._bound[size] = Bound(session, (frames, rows, columns), kinds, "cuda", graph_id)
            return _newest(self._bound, size, BUFFERS_KEPT)

    def _session(self, size: tuple[int, ...]) -> Session:
        """OpenVINO compiles for one size; the others take any."""
        key = size if self.provider == "openvino" else ()
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._open(key)
            return _newest(self._sessions, key, SIZES_KEPT)

    def _open(self, size: tuple[int, ...]) -> Session:
        try:
            graph = self._in_bytes if self.provider == "cpu" and self._in_bytes is not None else self._graph
            return open_session(graph, self.provider, self._options, size)
        except NetworkError:
            raise
        except Exception as error:  # the runtimes' own classes have no common base
            raise NetworkError(
                f"ONNX Runtime cannot run {self.card.name} on {self.provider} ({type(error).__name__}).", cure=_CURE
            ) from error

    @property
    def _smallest(self) -> tuple[int, int, int]:
        return 1, 2 * self.card.stride, 2 * self.card.stride

    def _check_contract(self) -> None:
        session = self._session(self._smallest)
        if isinstance(session, openvino.Compiled):
            inputs, outputs = session.inputs, session.outputs
        else:
            inputs, outputs = ({node.name for node in nodes} for nodes in (session.get_inputs(), session.get_outputs()))
        if inputs != {"frame"} or not set(OUTPUTS) <= outputs:
            raise NetworkError(f"The graph of {self.card.name} has other inputs or outputs than expected.", cure=_CURE)


def load_network(settings: Settings, threads: int | None = None, callers: int = 1) -> Network:
    """The network that the settings name, on the device they allow, for ``callers`` threads that use it at once.

    On a CPU each of them computes on its share of the cores, which is faster than all taking turns on all.
    Raises `NetworkError` when there is no such network or no such device.
    """
    folder = folder_of(settings)
    device = choose_device(settings.provider)
    chosen = threads or settings.threads or os.cpu_count() or 1
    options = Options(
        threads=max(1, chosen // callers),
        callers=callers,
        precision=settings.precision,
        graphs=settings.cuda_graphs,
        cache=str(settings.data_dir.resolve() / "engines"),
    )
    return Network(folder, device, options, may_fall_back=settings.provider == "auto")


def _newest(kept: "OrderedDict[tuple[int, ...], T]", key: tuple[int, ...], at_most: int) -> T:
    """The entry, which becomes the last to be thrown away; the one used longest ago goes when there are too many."""
    kept.move_to_end(key)
    while len(kept) > at_most:
        kept.popitem(last=False)
    return kept[key]


def folder_of(settings: Settings) -> Path:
    """Where the weights lie that the settings name: a folder, or a name in DATA_DIR/weights or under models/weights."""
    named = Path(settings.network)
    places = (named, settings.data_dir / "weights" / settings.network)
    return next((place for place in places if (place / "card.toml").is_file()), WEIGHTS / settings.network)


def installed(settings: Settings) -> list[Path]:
    """Every folder of weights that may be put in use by its name, and the one of the settings."""
    parents = [folder for folder in (settings.data_dir / "weights", WEIGHTS) if folder.is_dir()]
    found = {folder.name: folder for parent in reversed(parents) for folder in sorted(parent.iterdir())}
    return [folder for _, folder in sorted(found.items()) if (folder / "card.toml").is_file()]


def verify_weights(folder: Path, card: Card) -> None:
    """Raises `NetworkError` unless the folder's weights are exactly those that the card describes."""
    _graph(folder / "model.onnx", card.sha256)
    if card.quantised:
        _graph(folder / "model.int8.onnx", card.quantised)


def _graph(path: Path, digest: str) -> bytes:
    """The graph's bytes, which are exactly those its card describes; from memory it can refer to no other file."""
    try:
        graph = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"The weights {path} cannot be read.", cure=_CURE) from error
    if sha256(graph).hexdigest() != digest:
        raise NetworkError(f"The weights {path} are not those their card describes.", cure=_COPY_AGAIN)
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


_CURE = "Set SONOMARK_NETWORK to a name under models/weights or to a folder with model.onnx and its card.toml."
_MEND_CARD = "Mend what it says, or export the weights again."
_COPY_AGAIN = "One of the two was changed or copied by halves: copy model.onnx and card.toml there again, together."
_GPU_FAILED = "Look at `nvidia-smi` and the kernel's log; the worker starts again by itself."
