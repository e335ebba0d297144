"""MANet (Fan et al. 2020) on a ResNet-34: attention over positions at the bottom, over channels where scales meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architectures.resnet import conv_norm_relu, resnet34


class PositionAttention(nn.Module):
    """Every position gathers from every other, weighted by likeness. The softmax runs over all pairs, as published."""

    def __init__(self, channels: int, keys: int = 64) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, keys, 1)
        self.key = nn.Conv2d(channels, keys, 1)
        self.value = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        query, key, value = (part(features).flatten(2) for part in (self.query, self.key, self.value))
        likeness = query.transpose(1, 2) @ key
        weights = likeness.flatten(1).softmax(dim=1).view_as(likeness)
        gathered = value @ weights.transpose(1, 2)
        attended: Tensor = self.out(features + gathered.view_as(features))
        return attended


def _squeeze_excite(channels: int, reduction: int = 16) -> nn.Sequential:
    narrow = max(1, channels // reduction)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(channels, narrow, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(narrow, channels, 1),
        nn.Sigmoid(),
    )


class Fusion(nn.Module):
    """Enlarges the deep features, weighs their channels by what both scales say, and joins them to the skip."""

    def __init__(self, deeper: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(conv_norm_relu(deeper, deeper), conv_norm_relu(deeper, skip, 1))
        self.weigh_deep = _squeeze_excite(skip)
        self.weigh_skip = _squeeze_excite(skip)
        self.merge = nn.Sequential(conv_norm_relu(2 * skip, outputs), conv_norm_relu(outputs, outputs))

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        deep = functional.interpolate(self.narrow(deep), scale_factor=2.0, mode="nearest")
        weights = self.weigh_deep(deep) + self.weigh_skip(skip)
        fused: Tensor = self.merge(torch.cat([deep * weights, skip], dim=1))
        return fused


class MANet(nn.Module):
    """Frames (N, 3, H, W), H and W multiples of 32, in; restorations of the same shape out."""

    stride = 32

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet34()
        deepest, *skips = reversed(self.encoder.channels)
        outputs = (256, 128, 64, 32)
        self.bottom = PositionAttention(deepest)
        self.decoder = nn.ModuleList(
            Fusion(deeper, skip, output)
            for deeper, skip, output in zip((deepest, *outputs[:-1]), skips, outputs, strict=True)
        )
        self.head = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            conv_norm_relu(32, 16),
            conv_norm_relu(16, 16),
            nn.Conv2d(16, 3, 3, padding=1),
        )

    def forward(self, frame: Tensor) -> Tensor:
        skips = self.encoder(frame)
        deep = self.bottom(skips.pop())
        for fusion in self.decoder:
            deep = fusion(deep, skips.pop())
        restoration: Tensor = self.head(deep)
        return restoration
