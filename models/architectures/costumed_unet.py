"""The costumed U-Net of Zhang et al. 2024: restores a frame as if no annotation had been drawn.

The published network has 700,611 parameters because one block of its encoder serves four depths and one block of its
decoder three, with the same weights. That is a slip inherited from a port rather than a design; `shared=False`
gives every depth its own weights (1,344,147 parameters).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _up(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1)


def _relu() -> nn.ReLU:
    return nn.ReLU(inplace=True)


def _encoder_block() -> nn.Sequential:
    return nn.Sequential(_conv(48, 48), _relu(), nn.MaxPool2d(2))


def _decoder_block() -> nn.Sequential:
    return nn.Sequential(_conv(144, 96), _relu(), _conv(96, 96), _relu(), _up(96))


class CostumedUNet(nn.Module):
    """Frames (N, 3, H, W), H and W multiples of 32, in; restorations of the same shape out, not clamped."""

    stride = 32

    def __init__(self, shared: bool = True) -> None:
        super().__init__()
        self.entry = nn.Sequential(_conv(3, 48), _relu(), _conv(48, 48), _relu(), nn.MaxPool2d(2))
        # A module listed twice is one module with one set of weights: its gradient sums over its uses.
        self.encoder = nn.ModuleList([_encoder_block()] * 4 if shared else [_encoder_block() for _ in range(4)])
        self.bottom = nn.Sequential(_conv(48, 48), _relu(), _up(48))
        self.deep = nn.Sequential(_conv(96, 96), _relu(), _conv(96, 96), _relu(), _up(96))
        self.decoder = nn.ModuleList([_decoder_block()] * 3 if shared else [_decoder_block() for _ in range(3)])
        self.exit = nn.Sequential(
            _conv(99, 64), _relu(), _conv(64, 32), _relu(), _conv(32, 3), nn.LeakyReLU(0.1, inplace=True)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, frame: Tensor) -> Tensor:
        skips = [frame, self.entry(frame)]
        for block in self.encoder:
            skips.append(block(skips[-1]))
        features = self.bottom(skips.pop())
        features = self.deep(torch.cat([features, skips.pop()], dim=1))
        for block in self.decoder:
            features = block(torch.cat([features, skips.pop()], dim=1))
        restoration: Tensor = self.exit(torch.cat([features, skips.pop()], dim=1))
        return restoration
