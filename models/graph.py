"""The graph that is served: uint8 frames in, uint8 planes out, written as ONNX.

Its arithmetic is that of the network, its order is what ONNX Runtime's CPU kernels do fast. Everything happens at half
resolution, where each pixel is four channels; only the finished bytes are shuffled to full resolution, by two
transpositions that each move one axis. DepthToSpace on floats took a sixth of the frame's time, this a sixtieth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.architectures.unshuffle_unet import Block, UnshuffleUNet
from models.errors import TrainingError

OPSET = 18
# Restorations of the two runtimes may differ by rounding only.
_PARITY_LEVELS = 2
# Beyond any logit a trained network gives, and far from where exp overflows: a softmax that needs no maximum.
_LARGEST_LOGIT = 60.0
_PIXELS = 4  # pixels of the frame to one at half resolution


class Served(nn.Module):
    """The network as it is served: normalisation, residual and softmax inside the graph."""

    def __init__(self, network: UnshuffleUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 (N, H, W, 3) to restoration (N, H, W, 3), residual (N, H, W) and kinds (N, K, H, W), all uint8."""
        kinds = self.network.kinds
        level = unshuffled(frame.permute(0, 3, 1, 2)).float()
        change, logits = self._head(level / 127.5 - 1).split([3 * _PIXELS, (1 + kinds) * _PIXELS], dim=1)
        restored = (level + change * 255).clamp(0, 255).round()
        red, green, blue = (level - restored).abs().split(_PIXELS, dim=1)
        residual = torch.maximum(torch.maximum(red, green), blue)

        odds = logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT).exp()
        # Added one by one: ONNX Runtime's sum over a dimension that is not the last takes three times as long.
        background, *others = odds.split(_PIXELS, dim=1)
        scale = 255 / sum(others, background)
        probability = (torch.cat([one * scale for one in others], dim=1)).round()

        batch, height, width = frame.shape[0], frame.shape[1], frame.shape[2]
        return (
            shuffled(restored.to(torch.uint8)).permute(0, 2, 3, 1),
            shuffled(residual.to(torch.uint8)).reshape(batch, height, width),
            shuffled(probability.to(torch.uint8)).reshape(batch, kinds, height, width),
        )

    def _head(self, level: Tensor) -> Tensor:
        """What `UnshuffleUNet.forward` computes between its two shuffles."""
        network = self.network
        features = [network.stem[1:](level)]
        for down in network.down:
            features.append(down(features[-1]))
        deep = network.context(features.pop())
        for up in reversed(network.up):
            deep = up(deep, features.pop())
        planes: Tensor = network.head[0](deep)
        return planes


@torch.no_grad()
def plainly(network: UnshuffleUNet, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `Served` answers, computed as it is defined: the standard an exported graph is held to."""
    level = frame.permute(0, 3, 1, 2).float()
    restoration, logits = network(level / 255)
    restored = (restoration * 255).clamp(0, 255).round()
    residual = (level - restored).abs().amax(dim=1)
    kinds = (logits.softmax(dim=1)[:, 1:] * 255).round()
    return restored.permute(0, 2, 3, 1).to(torch.uint8), residual.to(torch.uint8), kinds.to(torch.uint8)


def unshuffled(planes: Tensor) -> Tensor:
    """(N, C, H, W) to (N, 4C, H/2, W/2), as `nn.PixelUnshuffle(2)` does it."""
    batch, channels, height, width = planes.shape
    rows = planes.reshape(batch * channels, height // 2, 2, width).transpose(1, 2)
    columns = rows.reshape(batch * channels * 2, height * width // 4, 2).transpose(1, 2)
    return columns.reshape(batch, channels * 4, height // 2, width // 2)


def shuffled(planes: Tensor) -> Tensor:
    """(N, 4C, H, W) to (N, C, 2H, 2W), as `nn.PixelShuffle(2)` does it."""
    batch, channels, height, width = planes.shape
    columns = planes.reshape(batch * channels // 2, 2, height * width).transpose(1, 2)
    rows = columns.reshape(batch * channels // 4, 2, height, width * 2).transpose(1, 2)
    return rows.reshape(batch, channels // 4, height * 2, width * 2)


def folded(network: UnshuffleUNet) -> UnshuffleUNet:
    """Batch normalisation as part of the convolution before it."""
    for block in [module for module in network.modules() if isinstance(module, Block)]:
        block[0] = fuse_conv_bn_eval(block.convolution, block.normalisation)
        block[1] = nn.Identity()
    return network


def write_graph(served: Served, path: Path) -> None:
    axes = {0: "frames", 1: "height", 2: "width"}
    torch.onnx.export(
        served,
        (torch.zeros(1, 64, 96, 3, dtype=torch.uint8),),
        str(path),
        opset_version=OPSET,
        input_names=["frame"],
        output_names=["restoration", "residual", "kinds"],
        dynamic_axes={
            "frame": axes,
            "restoration": axes,
            "residual": axes,
            "kinds": {0: "frames", 2: "height", 3: "width"},
        },
        dynamo=False,
    )
    onnx.checker.check_model(onnx.load(str(path)))


def refuse_disparity(served: Served, path: Path) -> None:
    """Compare the exported graph with the network on frames of two sizes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for shape in ((1, 96, 160, 3), (2, 64, 64, 3)):
        frame = np.repeat(
            np.repeat(rng.integers(0, 256, (shape[0], shape[1] // 8, shape[2] // 8, 3)), 8, 1), 8, 2
        ).astype(np.uint8)
        expected = [output.numpy() for output in plainly(served.network, torch.from_numpy(frame))]
        for name, got, wanted in zip(
            ("restoration", "residual", "kinds"), session.run(None, {"frame": frame}), expected, strict=True
        ):
            worst = int(np.abs(got.astype(int) - wanted.astype(int)).max())
            if got.shape != wanted.shape or worst > _PARITY_LEVELS:
                raise TrainingError(
                    f"The exported graph's {name} differs from the network's by {worst} levels.",
                    cure="Nothing was written: install the versions that pyproject.toml names, and export again.",
                )
