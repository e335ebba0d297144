"""Residual networks (He et al. 2016) as encoders: the features of every depth, no classifier, nothing pretrained."""

from __future__ import annotations

from torch import Tensor, nn


def conv_norm_relu(inputs: int, outputs: int, size: int = 3, dilation: int = 1) -> nn.Sequential:
    """Convolution that keeps height and width, batch normalisation, ReLU: the brick of every decoder here."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Basic(nn.Module):
    """Two 3x3 convolutions round a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, planes, 3, stride, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(planes),
        )
        self.shortcut = _shortcut(inputs, planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        joined: Tensor = self.relu(self.residual(features) + self.shortcut(features))
        return joined


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 round a shortcut (ResNet-50 and deeper), the stride on the 3x3."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, planes, 1, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm2d(planes),
            nn.ReLU(inplace=True),
            nn.Conv2d(planes, 4 * planes, 1, bias=False),
            nn.BatchNorm2d(4 * planes),
        )
        self.shortcut = _shortcut(inputs, 4 * planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        joined: Tensor = self.relu(self.residual(features) + self.shortcut(features))
        return joined


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """`forward` returns features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the frame, with `channels` channels each.

    With `output_stride` 8 the last two stages keep 1/8 and dilate instead, as segmentation heads without skips need.
    """

    def __init__(
        self, block: type[Basic] | type[Bottleneck], depths: tuple[int, int, int, int], output_stride: int = 32
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.stages = nn.ModuleList()
        inputs, reached, dilation = 64, 4, 1
        for planes, depth, stride in zip((64, 128, 256, 512), depths, (1, 2, 2, 2), strict=True):
            before = dilation
            if reached * stride > output_stride:
                stride, dilation = 1, dilation * stride
            reached *= stride
            blocks = []
            for index in range(depth):
                first = index == 0
                blocks.append(block(inputs, planes, stride if first else 1, before if first else dilation))
                inputs = planes * block.expansion
            self.stages.append(nn.Sequential(*blocks))
        self.channels = (64, *(planes * block.expansion for planes in (64, 128, 256, 512)))
        self.apply(_he)

    def forward(self, frame: Tensor) -> list[Tensor]:
        features = [self.stem(frame)]
        deep = self.pool(features[0])
        for stage in self.stages:
            deep = stage(deep)
            features.append(deep)
        return features


def _he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet34(output_stride: int = 32) -> ResNet:
    return ResNet(Basic, (3, 4, 6, 3), output_stride)


def resnet101(output_stride: int = 32) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 23, 3), output_stride)
