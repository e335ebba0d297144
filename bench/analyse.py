"""Frames a second through the worker's pipeline, where the time goes, and what share of the device's peak that is.

    python -m bench.analyse [--instances 48] [--rounds 5] [--batch 8] [--provider cpu] [--threads 1]

DICOM instances of 600 x 800 pixels, uncompressed and JPEG in turn, decoded in child processes, restored, their marks
read; the next batch is decoded while one is at the network, as the worker does it. The peak is measured too: a matrix
product large enough to fill the device, by the same runtime in the same precision on the same device and threads. The
network's operations stand in the card of the weights.
"""

import argparse
import os
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

os.environ.setdefault("SONOMARK_DATA_DIR", tempfile.mkdtemp())

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from bench.assess import COLUMNS, ROWS, screen
from service.analyse.devices import GPUS, Device, Options, open_session
from service.analyse.openvino import Compiled
from service.analyse.pipeline import Assessment, Begun, Pipeline
from service.analyse.restoration import Session, load_network
from service.settings import WEIGHTS, Settings, settings

SIDE = 4096  # of the product's matrices on a GPU; a CPU takes half


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--instances", type=int, default=48, help="a round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--batch", type=int, default=0, help="instances at once; 0: what the device likes")
    arguments.add_argument("--provider", default="auto", choices=["auto", "cuda", "tensorrt", "cpu"])
    arguments.add_argument("--precision", default="tf32", choices=["fp32", "tf32", "fp16", "bf16"])
    arguments.add_argument("--threads", type=int, default=1, help="of a CPU")
    chosen = arguments.parse_args()
    update = {"provider": chosen.provider, "precision": chosen.precision, "threads": chosen.threads}
    here = settings().model_copy(update=update)
    with tempfile.TemporaryDirectory() as folder, Pipeline(load_network(here)) as pipeline:
        files = [instance(Path(folder), number) for number in range(chosen.instances)]
        at_once = chosen.batch or (8 if pipeline.provider in GPUS else 1)
        pipeline.warm_up()
        list(assessed(pipeline, files[: 2 * at_once], at_once))
        rates, steps = [], defaultdict(list)
        for _ in range(chosen.rounds):
            start = perf_counter()
            found = list(assessed(pipeline, files, at_once))
            rates.append(len(files) / (perf_counter() - start))
            for step in found[0].milliseconds:
                steps[step].append(median(one.milliseconds[step] for one in found))
        report(pipeline, here, rates, {step: median(times) for step, times in steps.items()}, at_once)


def assessed(pipeline: Pipeline, files: list[Path], at_once: int) -> Iterator[Assessment]:
    """Batch after batch, the next one begun before this one is finished."""
    begun: Begun | None = None
    for first in [*range(0, len(files), at_once), None]:
        ahead = pipeline.begin(files[first : first + at_once]) if first is not None else None
        if begun is not None:
            for answer in pipeline.finish(begun):
                assert isinstance(answer, Assessment), answer
                yield answer
        begun = ahead


def report(pipeline: Pipeline, here: Settings, rates: list[float], steps: dict[str, float], at_once: int) -> None:
    card = tomllib.loads((WEIGHTS / here.network / "card.toml").read_text())
    gflop = card["gflop_608x800"]
    print(f"{pipeline.version} on {pipeline.provider}, {here.threads} thread(s), {at_once} instance(s) at once")
    print(f"frames/s   median {median(rates):.2f} of {sorted(round(rate, 2) for rate in rates)}")
    whole = sum(steps.values())
    for step, milliseconds in steps.items():
        print(f"  {step:8} {milliseconds:8.2f} ms a frame  {milliseconds / whole:5.0%}")
    reached, peak = gflop / steps["restore"] * 1000, peak_gflops(pipeline.provider, here)
    print(
        f"network    {gflop:.1f} GFLOP a frame, {reached:.0f} GFLOP/s: {reached / peak:.0%} of this device's {peak:.0f}"
    )


def peak_gflops(device: Device, here: Settings) -> float:
    """Of a large matrix product by constant weights, in the precision that the network computes in."""
    side = SIDE if device in GPUS else SIDE // 2
    weights, frame = np.random.default_rng(0).random((2, side, side), np.float32)
    shape = [1, 1, side, side]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["frame", "weights"], ["product"])],
        "product",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = Options(threads=here.threads, precision=here.precision)
    session = open_session(model.SerializeToString(), device, options, (1, side, side))
    multiply, times = multiplier(session, frame.reshape(shape), device), []
    for _ in range(6):
        start = perf_counter()
        multiply()
        times.append(perf_counter() - start)
    return float(2 * side**3 / min(times) / 1e9)


def multiplier(session: Session, frame: npt.NDArray[np.float32], device: Device) -> Callable[[], object]:
    """What asks the session for its product once; on a GPU the frame is there already, and the product stays there."""
    if isinstance(session, Compiled) or device not in GPUS:
        return lambda: session.run(["product"], {"frame": frame})
    binding = session.io_binding()
    binding.bind_ortvalue_input("frame", onnxruntime.OrtValue.ortvalue_from_numpy(frame, "cuda", 0))
    binding.bind_output("product", "cuda")

    def multiply() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return multiply


def instance(folder: Path, number: int) -> Path:
    """A DICOM instance, every other one as a JPEG."""
    path = screen(folder, 3 * number + 2)
    if number % 2:
        data = dcmread(path)
        frame = np.frombuffer(data.PixelData, np.uint8).reshape(ROWS, COLUMNS, 3)
        _, coded = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        data.PixelData, data.PhotometricInterpretation = encapsulate([coded.tobytes()]), "YBR_FULL_422"
        data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        data.save_as(path, enforce_file_format=True)
    return path


if __name__ == "__main__":
    main()
