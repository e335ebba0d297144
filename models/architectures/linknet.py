"""LinkNet (Chaurasia and Culurciello 2017) on a ResNet-34: the decoder adds the encoder's features to its own."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from models.architectures.resnet import conv_norm_relu, resnet34


def _decoder_block(inputs: int, outputs: int) -> nn.Sequential:
    narrow = inputs // 4
    return nn.Sequential(
        conv_norm_relu(inputs, narrow, 1),
        nn.ConvTranspose2d(narrow, narrow, 4, stride=2, padding=1),
        nn.BatchNorm2d(narrow),
        nn.ReLU(inplace=True),
        conv_norm_relu(narrow, outputs, 1),
    )


class LinkNet(nn.Module):
    """Frames (N, 3, H, W), H and W multiples of 32, in; restorations of the same shape out."""

    stride = 32

    def __init__(self) -> None:
        super().__init__()
        self.encoder = resnet34()
        widths = (*reversed(self.encoder.channels), 32)
        self.decoder = nn.ModuleList(_decoder_block(deeper, higher) for deeper, higher in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], 3, 1)

    def forward(self, frame: Tensor) -> Tensor:
        skips = self.encoder(frame)
        deep = skips.pop()
        for block in self.decoder:
            deep = block(deep)
            if skips:
                deep = deep + skips.pop()
        restoration: Tensor = self.head(deep)
        return restoration
