"""Devices: what is asked of ONNX Runtime for each, buffers used again, and a GPU that fails.

No GPU is needed: binding runs on the CPU's memory, and a GPU is played by a CPU session that fails when told to.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from service.analyse import devices, looks, restoration
from service.analyse.devices import Bound, Options, choose_device, open_session, providers
from service.analyse.restoration import Network, load_network
from service.errors import NetworkError
from service.settings import Settings
from tests.tiny_network import YELLOW, look_again, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny")


def speckle(seed: int, frames: int = 1, rows: int = 64, columns: int = 96) -> np.ndarray:
    stack = np.random.default_rng(seed).integers(0, 200, (frames, rows, columns, 3), np.uint8)
    stack[:, 5:9, 5:30] = YELLOW
    return stack


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that claims to have a GPU; what stands in the list lets it fail: to start, or at the next batch."""
    faults: list[str] = []
    there = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)

    def open_on_cpu(graph: bytes, device: str, chosen: Options, size: tuple[int, ...] = ()) -> object:
        if device in devices.GPUS and "start" in faults:
            raise NetworkError("CUDA was asked for and does not start.", cure=devices.NO_CUDA)
        return open_session(graph, "cpu", chosen)

    class Played(Bound):
        def __init__(self, session: object, size: object, kinds: int, memory: str, graph_id: int | None) -> None:
            super().__init__(session, size, kinds, "cpu")  # type: ignore[arg-type]

        def run(self, padded: np.ndarray) -> list[np.ndarray]:
            if "run" in faults:
                raise RuntimeError("CUDA error: unspecified launch failure")
            return super().run(padded)

    monkeypatch.setattr(restoration, "open_session", open_on_cpu)
    monkeypatch.setattr(restoration, "Bound", Played)
    return faults


def test_buffers_used_again_give_what_a_plain_run_gives(weights: Path) -> None:
    session = open_session((weights / "model.onnx").read_bytes(), "cpu", Options())
    bound = Bound(session, (3, 64, 96), 5, "cpu")
    kept = []
    for seed in range(3):
        frames = speckle(seed, frames=3)
        kept.append((bound.run(frames), session.run(devices.OUTPUTS, {"frame": frames})))
    # Compared at the end: an answer must not change under its owner when the next batch runs.
    for ours, plain in kept:
        assert all((one == other).all() for one, other in zip(ours, plain, strict=True))


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_gives_the_answers_of_the_cpu(weights: Path, with_gpu: list[str], house: Settings, provider: str) -> None:
    chosen = house.model_copy(update={"network": str(weights), "provider": provider})
    gpu, cpu = load_network(chosen), Network(weights)
    frames = [frame for seed in range(5) for frame in speckle(seed, rows=40 + 8 * (seed % 2))]
    assert gpu.provider == provider and gpu.batch == 8
    for one, other in zip(gpu.restore(frames), cpu.restore(frames), strict=True):
        assert (one.kinds == other.kinds).all() and (one.restoration == other.restoration).all()


@pytest.mark.parametrize("fails", [False, True])
def test_a_gpu_looks_twice_as_the_cpu_does(
    weights: Path, with_gpu: list[str], house: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Each look has its own buffers; where the GPU fails between them, the CPU takes the second one of all frames."""
    folder = look_again(write_weights(tmp_path / "weights"), 0.5)
    gpu = load_network(house.model_copy(update={"network": str(folder), "provider": "auto"}))
    frames = [frame for seed in range(5) for frame in speckle(seed, rows=40 + 8 * (seed % 2), columns=90)]
    expected = Network(folder).restore(frames)
    if fails:
        from_afar = looks.from_afar
        monkeypatch.setattr(looks, "from_afar", lambda *given: with_gpu.append("run") or from_afar(*given))
    for one, other in zip(gpu.restore(frames), expected, strict=True):
        assert (one.kinds == other.kinds).all() and (one.restoration == other.restoration).all()
    assert gpu.provider == ("cpu" if fails else "cuda")


def test_a_gpu_that_fails_at_work_makes_way_for_the_cpu(weights: Path, with_gpu: list[str], house: Settings) -> None:
    network = load_network(house.model_copy(update={"network": str(weights), "provider": "auto"}))
    (before,) = network.restore([*speckle(1)])
    assert network.provider == "cuda"
    with_gpu.append("run")
    (after,) = network.restore([*speckle(1)])
    assert network.provider == "cpu" and network.batch == 1
    assert (before.kinds == after.kinds).all() and (before.restoration == after.restoration).all()


def test_a_gpu_that_does_not_start_makes_way_only_where_nobody_insists(
    weights: Path, with_gpu: list[str], house: Settings
) -> None:
    with_gpu.append("start")
    named = house.model_copy(update={"network": str(weights)})
    assert load_network(named.model_copy(update={"provider": "auto"})).provider == "cpu"
    with pytest.raises(NetworkError, match="does not start") as refused:
        load_network(named.model_copy(update={"provider": "cuda"}))
    assert "sonomark[gpu]" in refused.value.cure


def test_a_gpu_that_was_asked_for_fails_aloud(weights: Path, with_gpu: list[str], house: Settings) -> None:
    network = load_network(house.model_copy(update={"network": str(weights), "provider": "cuda"}))
    with_gpu.append("run")
    with pytest.raises(NetworkError, match="GPU failed") as failed:
        network.restore([*speckle(1)])
    assert "nvidia-smi" in failed.value.cure and network.provider == "cuda"


def test_sizes_come_and_go_and_few_are_kept(weights: Path, with_gpu: list[str], house: Settings) -> None:
    network = load_network(house.model_copy(update={"network": str(weights), "provider": "cuda"}))
    for rows in range(32, 32 * (restoration.BUFFERS_KEPT + 4), 32):
        network.restore([*speckle(1, rows=rows)])
    assert len(network._bound) == restoration.BUFFERS_KEPT


@pytest.mark.parametrize(
    ("device", "options", "first", "expected"),
    [
        ("cuda", Options(), "CUDAExecutionProvider", {"use_tf32": "1", "enable_cuda_graph": "0"}),
        ("cuda", Options(precision="fp32"), "CUDAExecutionProvider", {"use_tf32": "0"}),
        ("cuda", Options(graphs=True), "CUDAExecutionProvider", {"enable_cuda_graph": "1"}),
        ("tensorrt", Options(precision="fp16"), "TensorrtExecutionProvider", {"trt_fp16_enable": "1"}),
        (
            "tensorrt",
            Options(precision="bf16", graphs=True, cache="/data/engines"),
            "TensorrtExecutionProvider",
            {"trt_bf16_enable": "1", "trt_cuda_graph_enable": "1", "trt_engine_cache_path": "/data/engines"},
        ),
    ],
)
def test_what_a_device_is_asked_for(
    device: devices.Device, options: Options, first: str, expected: dict[str, str]
) -> None:
    asked = providers(device, options)
    name, given = asked[0]
    assert name == first and expected.items() <= given.items()  # type: ignore[union-attr]
    assert asked[-1] == "CPUExecutionProvider"


def test_tensorrt_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(NetworkError, match="TensorRT") as refused:
        choose_device("tensorrt")
    assert "cuda" in refused.value.cure
