"""DeepLabV3 (Chen et al. 2017): atrous spatial pyramid pooling on a dilated ResNet-34."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architectures.resnet import conv_norm_relu, resnet34


class AtrousPyramid(nn.Module):
    """Looks at the features through 1x1, three dilated 3x3 and a global window, and merges the five views."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...] = (12, 24, 36)) -> None:
        super().__init__()
        self.windows = nn.ModuleList(
            [conv_norm_relu(inputs, outputs, 1), *(conv_norm_relu(inputs, outputs, 3, rate) for rate in rates)]
        )
        self.everything = conv_norm_relu(inputs, outputs, 1)
        self.merge = nn.Sequential(conv_norm_relu((len(rates) + 2) * outputs, outputs, 1), nn.Dropout(0.5))

    def forward(self, features: Tensor) -> Tensor:
        views = [window(features) for window in self.windows]
        mean = self.everything(features.mean(dim=(2, 3), keepdim=True))
        merged: Tensor = self.merge(torch.cat([*views, mean.expand_as(views[0])], dim=1))
        return merged


class DeepLabV3(nn.Module):
    """Frames (N, 3, H, W), H and W multiples of 8, in; restorations of the same shape, enlarged eightfold, out.

    Training needs batches of at least two: the global window is one value a channel, which cannot be normalised alone.
    """

    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet34(output_stride=8)
        self.decoder = nn.Sequential(AtrousPyramid(self.encoder.channels[-1], 256), conv_norm_relu(256, 256))
        self.head = nn.Conv2d(256, 3, 1)

    def forward(self, frame: Tensor) -> Tensor:
        coarse = self.head(self.decoder(self.encoder(frame)[-1]))
        return functional.interpolate(coarse, size=frame.shape[-2:], mode="bilinear", align_corners=False)
