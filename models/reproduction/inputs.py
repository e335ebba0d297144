"""How a network sees grey levels, and how its answer becomes grey levels again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Images = npt.NDArray[np.uint8]

# Mean and standard deviation per channel of the paper's frames, in grey levels of 255.
SMN_MEAN = (46.17, 45.24, 44.76)
SMN_DEVIATION = (59.36, 59.47, 59.92)

INPUTS = ("linear", "SMN")


def to_network(images: Images, scheme: str) -> Tensor:
    """uint8 (N, H, W, 3) to float (N, 3, H, W): divided by 255 (`linear`) or standardised (`SMN`)."""
    levels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    return levels / 255 if scheme == "linear" else (levels - _per_channel(SMN_MEAN)) / _per_channel(SMN_DEVIATION)


def to_levels(restorations: Tensor, scheme: str, *, unscaled: bool) -> npt.NDArray[np.float64]:
    """Float (N, 3, H, W) to grey levels (N, H, W, 3), not yet whole or within 0..255.

    With `unscaled`, standardised values are taken for fractions of 255, as published.
    """
    restorations = restorations.detach().float().cpu()
    if scheme == "linear" or unscaled:
        levels = restorations * 255
    else:
        levels = restorations * _per_channel(SMN_DEVIATION) + _per_channel(SMN_MEAN)
    return levels.permute(0, 2, 3, 1).double().numpy()


def to_uint8(levels: npt.NDArray[np.float64], *, wrapping: bool) -> Images:
    """Grey levels to uint8: rounded and clamped, or cut off and wrapped round at 256 as a bare cast does."""
    if wrapping:
        return (np.trunc(levels).astype(np.int64) & 0xFF).astype(np.uint8)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _per_channel(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
