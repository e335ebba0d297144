"""The network on an NVIDIA GPU: frames a second, their share of the roofline, and whether it reads as a CPU does.

    python -m bench.cuda [--weights FOLDER] [--batch 8] [--rounds 5] [--data FOLDER --frames 40]

The network as it is served, uint8 in and out, by PyTorch in half precision with its launches recorded (CUDA graphs):
what remains of a GPU's time when decoding, ONNX Runtime and the copies to and from the host are left out; for those,
`bench.analyse`. The roofline is measured here too: a large matrix product for arithmetic, a large copy for memory.
With clean frames of ``--data``, marks of unseen styles are drawn on them and read from both devices' answers.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from models.architectures.unshuffle_unet import UnshuffleUNet, gflop
from models.corruption import corrupt
from models.dataset import clean_frames, read_frame
from models.graph import Served, folded
from models.machine import placed
from models.released import released
from models.served import Frame, Output, Weights, verdict
from service.analyse.annotations import Kind

ROWS, COLUMNS = 608, 800
STRIDE = 32
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--weights", type=Path, default=Path("models/weights/sonomark"))
    arguments.add_argument("--batch", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--data", type=Path)
    arguments.add_argument("--frames", type=int, default=40)
    chosen = arguments.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("There is no NVIDIA GPU here, or PyTorch was built without CUDA.")
    network = folded(released(chosen.weights, torch.rand(2, 3, 256, 256)))
    operations, moved = gflop(network, ROWS, COLUMNS) * 1e9, least_bytes(network)
    arithmetic, memory = product_rate(), copy_rate()
    floor = max(operations / arithmetic, moved / memory)
    print(f"{torch.cuda.get_device_name()}, {chosen.weights.name}, {ROWS} x {COLUMNS}, batches of {chosen.batch}")
    print(f"  peak: {arithmetic / 1e12:.0f} TFLOP/s by a product, {memory / 1e12:.2f} TB/s by a copy")
    print(f"  a frame: {operations / 1e9:.1f} GFLOP, {moved / 1e6:.0f} MB, {floor * 1e6:.0f} us by the roofline")
    served = placed(Served(network), torch.device("cuda"))
    frames = torch.randint(0, 256, (chosen.batch, ROWS, COLUMNS, 3), dtype=torch.uint8, device="cuda")
    for name, kind in PRECISIONS.items():
        per_frame = seconds(recorded(served, frames, kind), chosen.rounds) / chosen.batch
        share = 100 * floor / per_frame
        print(
            f"  {name:9s}{1 / per_frame:8.0f} frames/s  {per_frame * 1e6:6.0f} us a frame  {share:5.1f} % of roofline"
        )
    if chosen.data:
        weights = Weights(chosen.weights)
        weights.graph.second_look, weights.graph.most_close_ups = 0.0, 0  # the device looks once
        for name, kind in PRECISIONS.items():
            found = compare(served, weights, marked(chosen.data, chosen.frames, weights.graph.max_side), kind)
            print(
                f"  {name:9s} {found.changed} of {found.read} verdicts differ from the CPU's,"
                f" probabilities by at most {found.worst} of 255"
            )


def least_bytes(network: UnshuffleUNet) -> float:
    """Bytes one frame moves when each convolution reads its input and writes its output once, in two bytes a value."""
    moved = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        moved += 2 * (inputs[0].numel() + output.numel())

    hooks = [each.register_forward_hook(add) for each in network.modules() if isinstance(each, nn.Conv2d)]
    with torch.no_grad():
        network(torch.zeros(1, 3, ROWS, COLUMNS))
    for hook in hooks:
        hook.remove()
    return float(moved)


def product_rate(side: int = 8192) -> float:
    """Operations a second of a bfloat16 matrix product on random numbers."""
    left, right = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: left @ right, 5)


def copy_rate(size: int = 4 * 2**30) -> float:
    """Bytes read and written a second by a copy within the device's memory."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), 5)


def recorded(served: Served, frames: Tensor, kind: torch.dtype) -> Callable[[], object]:
    """A replay of the network's launches on these frames."""

    def once() -> object:
        with torch.no_grad(), torch.autocast("cuda", kind, enabled=kind != torch.float32, cache_enabled=False):
            return served(frames)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    return graph.replay


def seconds(work: Callable[[], object], rounds: int, times: int = 20) -> float:
    """The median over rounds of what one call takes on the device."""
    for _ in range(3):
        work()
    taken: list[float] = []
    for _ in range(rounds):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            work()
        stop.record()
        stop.synchronize()
        taken.append(start.elapsed_time(stop) / 1e3 / times)
    return median(taken)


@dataclass
class Agreement:
    """How the answers of two devices to the same frames agree."""

    read: int = 0  # verdicts, one for each kind of each frame
    changed: int = 0  # of them
    worst: int = 0  # between two probabilities, of 255

    def add(self, weights: Weights, here: Output, there: Output) -> None:
        """Count the answers to one frame."""
        pairs = list(zip(verdicts(weights, here), verdicts(weights, there), strict=True))
        self.read += len(pairs)
        self.changed += sum(one != other for one, other in pairs)
        self.worst = max(self.worst, int(np.abs(here.kinds.astype(int) - there.kinds).max()))


def compare(
    served: Served, weights: Weights, frames: Iterable[Frame], kind: torch.dtype, device: str = "cuda"
) -> Agreement:
    """The network on a device against ONNX Runtime on the CPU, on frames that need neither padding nor reduction."""
    agreement = Agreement()
    for frame in frames:
        with torch.no_grad(), torch.autocast(device, kind, enabled=kind != torch.float32):
            answer = served(torch.from_numpy(frame)[None].to(device))
        there = Output(frame, *(part[0].cpu().numpy() for part in answer))
        agreement.add(weights, weights.graph(frame), there)
    return agreement


def marked(data: Path, count: int, max_side: int) -> Iterator[Frame]:
    """Frames of ``data`` with marks of unseen styles, the same ones each time, cut to whole strides of the network."""
    frames, rng = clean_frames(data), np.random.default_rng(0)
    while count:
        drawn = corrupt(read_frame(frames[int(rng.integers(len(frames)))].path), rng, held_out=True).noisy
        rows, columns = (min(side, max_side) // STRIDE * STRIDE for side in drawn.shape[:2])
        if rows and columns:
            count -= 1
            yield np.ascontiguousarray(drawn[:rows, :columns])


def verdicts(weights: Weights, output: Output) -> list[str]:
    scores = weights.read(output).scores
    return [verdict(scores[kind], weights.thresholds[kind]) for kind in Kind]


if __name__ == "__main__":
    main()
