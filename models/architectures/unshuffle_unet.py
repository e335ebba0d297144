"""The product's network: a U-Net behind a pixel-unshuffle stem, with a restoration head and a typed mask head.

A mark is one to three pixels thick but only its surroundings tell a caliper from a letter or a corner of a colour
box, so the network works at half resolution (pixel-unshuffle, nothing is lost) and looks down to 1/32 with a dilated
bottleneck. Dense 3x3 convolutions on few channels are what CPUs do best; depthwise ones were measured slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Sequential):
    """3x3 convolution, batch normalisation (folded into the convolution on export) and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    @property
    def convolution(self) -> nn.Conv2d:
        first = self[0]
        assert isinstance(first, nn.Conv2d)
        return first

    @property
    def normalisation(self) -> nn.BatchNorm2d:
        """Not in a folded network, whose convolutions hold it."""
        second = self[1]
        assert isinstance(second, nn.BatchNorm2d)
        return second


class Up(nn.Module):
    """Doubles the resolution of the deeper features and adds them to the skip connection."""

    def __init__(self, deeper: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(deeper, channels, 1)
        self.blocks = nn.Sequential(*(Block(channels, channels) for _ in range(blocks)))

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        # Projecting before enlarging costs a quarter of projecting after, with the same result.
        enlarged = functional.interpolate(self.project(deep), scale_factor=2.0, mode="nearest")
        joined: Tensor = self.blocks(enlarged + skip)
        return joined


class UnshuffleUNet(nn.Module):
    """Restores a frame and says which pixels belong to which kind of annotation.

    ``forward`` takes frames in [0, 1], shape (N, 3, H, W), H and W multiples of 32, and returns the restoration, same
    shape, and the mask's logits (N, 1 + kinds, H, W) over background and kinds.
    """

    stride = 32

    def __init__(
        self,
        kinds: int = 5,
        channels: Sequence[int] = (24, 48, 64, 96, 128),
        top_blocks: int = 2,
        dilations: Sequence[int] = (1, 2),
    ) -> None:
        super().__init__()
        self.kinds, self.channels = kinds, tuple(channels)
        self.top_blocks, self.dilations = top_blocks, tuple(dilations)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), Block(12, channels[0]), Block(channels[0], channels[0]))
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(
            nn.Sequential(Block(above, below, stride=2), Block(below, below)) for above, below in pairs
        )
        self.context = nn.Sequential(*(Block(channels[-1], channels[-1], dilation=rate) for rate in dilations))
        self.up = nn.ModuleList(
            Up(below, above, top_blocks if level == 0 else 2) for level, (above, below) in enumerate(pairs)
        )
        self.head = nn.Sequential(nn.Conv2d(channels[0], 4 * (3 + 1 + kinds), 3, padding=1), nn.PixelShuffle(2))
        self._start_as_identity()

    def _start_as_identity(self) -> None:
        """He initialisation; the head starts at "no mark anywhere", so that the first steps do not undo a random
        picture."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        final = self.head[0]
        assert isinstance(final, nn.Conv2d) and final.bias is not None
        nn.init.normal_(final.weight, std=1e-2)
        nn.init.zeros_(final.bias)
        # PixelShuffle(2) lays out four consecutive channels for each output channel; channel 3 is the background's.
        final.bias.data[12:16] = 3.0

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        features = [self.stem(frame * 2.0 - 1.0)]
        for down in self.down:
            features.append(down(features[-1]))
        deep = self.context(features.pop())
        for up in reversed(self.up):
            deep = up(deep, features.pop())
        change, logits = self.head(deep).split([3, 1 + self.kinds], dim=1)
        return frame + change, logits


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def gflop(network: nn.Module, height: int = 608, width: int = 800) -> float:
    """Floating-point operations of one frame in units of 10^9; one multiply-add counts two."""
    from torch.utils.flop_counter import FlopCounterMode

    training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, height, width))
    network.train(training)
    return float(counter.get_total_flops() / 1e9)
