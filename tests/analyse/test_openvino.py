"""OpenVINO: the answers of ONNX Runtime, from several threads, and not a word to its maker."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.analyse import openvino, restoration
from service.analyse.devices import OUTPUTS, Options, open_session
from service.analyse.openvino import Compiled
from service.analyse.pixel_shuffle import unshuffled
from service.analyse.restoration import Network
from service.settings import WEIGHTS
from tests.tiny_network import YELLOW, write_weights

pytestmark = pytest.mark.skipif(openvino._core() is None, reason="OpenVINO is not installed")


def speckle(seed: int) -> np.ndarray:
    frames = np.random.default_rng(seed).integers(0, 200, (1, 64, 96, 3), np.uint8)
    frames[:, 5:9, 5 : 30 + seed] = YELLOW
    return frames


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (write_weights(tmp_path_factory.mktemp("weights") / "tiny") / "model.onnx").read_bytes()


def test_several_threads_get_what_onnx_runtime_gives(graph: bytes) -> None:
    session, compiled = open_session(graph, "cpu", Options()), Compiled(graph, (1, 64, 96), threads=2, streams=2)
    assert compiled.inputs == {"frame"} and compiled.outputs == set(OUTPUTS)
    frames = [speckle(seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as threads:
        # All are kept until the end: an answer must not change under its owner when the next frame is asked for.
        answers = list(threads.map(lambda frame: compiled.run(OUTPUTS, {"frame": frame}), frames))
    for frame, answer in zip(frames, answers, strict=True):
        for ours, plain in zip(answer, session.run(OUTPUTS, {"frame": frame}), strict=True):
            assert ours.dtype == plain.dtype and (ours == plain).all()


def test_the_shuffles_of_the_released_graph_are_done_outside_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = (WEIGHTS / "sonomark" / "model.onnx").read_bytes()
    frame = np.random.default_rng(3).integers(0, 256, (1, 96, 160, 3), np.uint8)
    outside = Compiled(graph, (1, 96, 160), threads=1, streams=1, bfloat16=False)
    assert outside._between is not None
    answers = outside.run(OUTPUTS, {"frame": frame})
    monkeypatch.setattr(openvino, "_shuffles", lambda _: False)
    plain = Compiled(graph, (1, 96, 160), threads=1, streams=1, bfloat16=False).run(OUTPUTS, {"frame": frame})
    assert [answer.shape for answer in answers] == [(1, 96, 160, 3), (1, 96, 160), (1, 5, 96, 160)]
    for ours, theirs in zip(answers, plain, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_a_graph_that_shuffles_otherwise_or_not_at_all_is_run_whole(
    graph: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not openvino._shuffles(graph)
    released = (WEIGHTS / "sonomark" / "model.onnx").read_bytes()
    monkeypatch.setattr(openvino, "unshuffled", lambda frames: unshuffled(frames[:, :, ::-1].copy()))
    openvino._shuffles.cache_clear()
    try:
        assert not openvino._shuffles(released)
    finally:
        openvino._shuffles.cache_clear()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core alone")
def test_no_thread_is_pinned_to_a_core_while_it_computes() -> None:
    program = f"""
import contextlib, os, threading
import numpy
from service.analyse.openvino import Compiled
allowed = os.sched_getaffinity(0)
graph = open({str(WEIGHTS / "sonomark" / "model.onnx")!r}, "rb").read()
compiled = Compiled(graph, (1, 256, 256), threads=1, streams=1)
def compute():
    for _ in range(40):
        compiled.run(["kinds"], {{"frame": numpy.zeros((1, 256, 256, 3), numpy.uint8)}})
computing = threading.Thread(target=compute)
computing.start()
pinned = False
while computing.is_alive():
    for one in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            pinned |= os.sched_getaffinity(int(one)) != allowed
print(pinned)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert told.stdout == "False\n", told.stderr


def test_nothing_that_reports_to_its_maker_is_loaded(graph: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    program = f"""
import socket, sys
def refuse(*_): raise SystemExit("somebody connects")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import urllib.request; urllib.request.urlopen = refuse
from service.analyse.openvino import Compiled, computes_in_bfloat16
computes_in_bfloat16()
Compiled(open({str(path)!r}, "rb").read(), (1, 64, 96), threads=1, streams=1)
print([name for name, module in sys.modules.items() if module and ("telemetry" in name or "ovc" in name)
       and not name.startswith("service.")])
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert told.stdout == "[]\n", told.stderr


def test_float32_is_computed_where_it_is_asked_for(graph: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    core = openvino._core()

    class Heard:
        read_model = staticmethod(core.read_model)

        @staticmethod
        def compile_model(model: object, device: str, properties: dict[str, object]) -> object:
            asked.append(properties)
            return core.compile_model(model, device, properties)

    monkeypatch.setattr(openvino, "_core", Heard)
    for precision in ("fp32", "tf32", "bf16"):
        open_session(graph, "openvino", Options(threads=1, callers=2, precision=precision), (1, 64, 96))
    assert [one["INFERENCE_PRECISION_HINT"] for one in asked] == ["f32", "bf16", "bf16"]
    # Workers that pin themselves would all sit on the first core.
    assert all(one["ENABLE_CPU_PINNING"] is False and one["INFERENCE_NUM_THREADS"] == 2 for one in asked)


def test_sizes_come_and_go_and_those_in_use_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoration, "SIZES_KEPT", 3)
    network = Network(write_weights(tmp_path / "tiny"), "openvino")
    in_use = np.full((64, 64, 3), 90, np.uint8)
    network.restore([in_use])
    kept = network._sessions[(1, 64, 64)]
    for rows in range(96, 256, 32):
        network.restore([np.zeros((rows, 64, 3), np.uint8), in_use])
    assert len(network._sessions) == 3 and network._sessions[(1, 64, 64)] is kept
