"""FCN_101: fully convolutional network (Long et al. 2015) on a dilated ResNet-101."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from models.architectures.resnet import conv_norm_relu, resnet101


class FCN(nn.Module):
    """Frames (N, 3, H, W), H and W multiples of 8, in; restorations of the same shape, enlarged eightfold, out."""

    stride = 8

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet101(output_stride=8)
        deepest = self.encoder.channels[-1]
        self.head = nn.Sequential(conv_norm_relu(deepest, deepest // 4), nn.Dropout(0.1), nn.Conv2d(deepest // 4, 3, 1))

    def forward(self, frame: Tensor) -> Tensor:
        coarse = self.head(self.encoder(frame)[-1])
        return functional.interpolate(coarse, size=frame.shape[-2:], mode="bilinear", align_corners=False)
