"""U-Net++ (Zhou et al. 2018) on a ResNet-34: a triangle of small decoders fills the way from encoder to decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architectures.resnet import conv_norm_relu, resnet34


class Node(nn.Module):
    """One node of the triangle: enlarges what lies below and joins it to everything to its left."""

    def __init__(self, below: int, left: int, outputs: int) -> None:
        super().__init__()
        self.merge = nn.Sequential(conv_norm_relu(below + left, outputs), conv_norm_relu(outputs, outputs))

    def forward(self, below: Tensor, left: list[Tensor]) -> Tensor:
        enlarged = functional.interpolate(below, scale_factor=2.0, mode="nearest")
        joined: Tensor = self.merge(torch.cat([enlarged, *left], dim=1))
        return joined


class UNetPlusPlus(nn.Module):
    """Frames (N, 3, H, W), H and W multiples of 32, in; restorations of the same shape out."""

    stride = 32

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet34()
        widths = self.encoder.channels
        decoder = (32, 64, 128, 256)
        # rows[level][step - 1] computes X(level, step) of the paper; the last of a row narrows to the decoder's width.
        self.rows = nn.ModuleList()
        for level in range(4):
            row = nn.ModuleList()
            for step in range(1, 5 - level):
                last = step == 4 - level
                below = decoder[level + 1] if last and step > 1 else widths[level + 1]
                row.append(Node(below, step * widths[level], decoder[level] if last else widths[level]))
            self.rows.append(row)
        self.last = Node(32, 0, 16)
        self.head = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, frame: Tensor) -> Tensor:
        triangle = [[features] for features in self.encoder(frame)]
        for step in range(1, 5):
            for level in range(5 - step):
                row = self.rows[level]
                assert isinstance(row, nn.ModuleList)
                node = row[step - 1]
                triangle[level].append(node(triangle[level + 1][step - 1], triangle[level][::-1]))
        restoration: Tensor = self.head(self.last(triangle[0][-1], []))
        return restoration
