"""MultiResUNet (Ibtehaz and Rahman 2020): three 3x3 in a row see 3, 5 and 7 pixels; skips run through residual paths.

Zhang et al. count 7.8 M parameters where the original has 7.2 M. The difference tells which of the ports they used: one
whose residual paths repeat their second step with the same weights. It is rebuilt here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ALPHA = 1.67
"""Widens every block against the U-Net it replaces, as published."""


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False)


def _conv_norm(inputs: int, outputs: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, padding=size // 2), _norm(outputs))


class MultiRes(nn.Module):
    """Joins the results of one, two and three 3x3 convolutions and adds a 1x1 shortcut."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        widths = [int(ALPHA * width / part) for part in (6, 3, 2)]
        self.channels = sum(widths)
        self.convs = nn.ModuleList(
            nn.Sequential(_conv_norm(before, after, 3), nn.ReLU(inplace=True))
            for before, after in zip([inputs, *widths[:-1]], widths, strict=True)
        )
        self.shortcut = _conv_norm(inputs, self.channels, 1)
        self.joined = _norm(self.channels)
        self.out = nn.Sequential(nn.ReLU(inplace=True), _norm(self.channels))

    def forward(self, features: Tensor) -> Tensor:
        views, view = [], features
        for conv in self.convs:
            view = conv(view)
            views.append(view)
        joined: Tensor = self.out(self.joined(torch.cat(views, dim=1)) + self.shortcut(features))
        return joined


class ResidualStep(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv_norm(inputs, outputs, 3), nn.ReLU(inplace=True))
        self.shortcut = _conv_norm(inputs, outputs, 1)
        self.out = nn.Sequential(nn.ReLU(inplace=True), _norm(outputs))

    def forward(self, features: Tensor) -> Tensor:
        joined: Tensor = self.out(self.conv(features) + self.shortcut(features))
        return joined


class ResidualPath(nn.Module):
    """A skip connection: the higher its level, the more steps its features lack against the decoder's."""

    def __init__(self, inputs: int, outputs: int, repeats: int) -> None:
        super().__init__()
        self.first, self.again, self.repeats = ResidualStep(inputs, outputs), ResidualStep(outputs, outputs), repeats

    def forward(self, features: Tensor) -> Tensor:
        features = self.first(features)
        for _ in range(self.repeats):
            features = self.again(features)
        return features


class MultiResUNet(nn.Module):
    """Frames (N, 3, H, W), H and W multiples of 16, in; restorations of the same shape out."""

    stride = 16

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 256)
        self.down, self.paths = nn.ModuleList(), nn.ModuleList()
        channels = 3
        for width, repeats in zip(widths, (4, 3, 2, 1), strict=True):
            block = MultiRes(channels, width)
            self.down.append(block)
            channels = block.channels
            self.paths.append(ResidualPath(channels, width, repeats))
        self.bottom = MultiRes(channels, 512)
        channels = self.bottom.channels
        self.enlarge, self.up = nn.ModuleList(), nn.ModuleList()
        for width in reversed(widths):
            self.enlarge.append(nn.ConvTranspose2d(channels, width, 2, stride=2))
            block = MultiRes(2 * width, width)
            self.up.append(block)
            channels = block.channels
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(channels, 3, 1)

    def forward(self, frame: Tensor) -> Tensor:
        skips, features = [], frame
        for block, path in zip(self.down, self.paths, strict=True):
            features = block(features)
            skips.append(path(features))
            features = self.pool(features)
        features = self.bottom(features)
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            features = block(torch.cat([enlarge(features), skips.pop()], dim=1))
        restoration: Tensor = self.head(features)
        return restoration
