"""How crops are varied on the device they are trained on: gain, colour, noise."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def varied(noisy: Tensor, second: Tensor, kinds: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Crops as `Feed` gives them, in [0, 1] and where they were, each with its own gain and share of colour, the same
    for input and target.

    Colour must not be a shortcut: some scanners draw boxes and markers in grey, some archives keep grey frames only,
    and no palette holds every vendor's ink. Half of the crops therefore get their primaries mixed anew, which leaves
    grey tissue as it is.
    """
    count, device = len(noisy), noisy.device

    def of_each(values: np.ndarray) -> Tensor:
        there = torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)
        return there.repeat(2, *[1] * (values.ndim - 1))

    both = torch.cat([noisy, second]).permute(0, 3, 1, 2).float().div_(255)
    both = torch.einsum("nij,njhw->nihw", of_each(np.stack([mixed_primaries(rng) for _ in range(count)])), both)
    gain = of_each(rng.uniform(0.75, 1.2, count)).view(-1, 1, 1, 1)
    grey = of_each(rng.random(count) < 0.25).view(-1, 1, 1, 1)
    luminance = 0.299 * both[:, 0:1] + 0.587 * both[:, 1:2] + 0.114 * both[:, 2:3]
    both = torch.lerp(both, luminance.expand_as(both), grey).mul_(gain).clamp_(0, 1)
    noise = float(rng.choice([0.0, 0.0, 0.01, 0.02]))
    frame = both[:count]
    if noise:
        frame = (frame + noise * torch.randn_like(frame[:, :1])).clamp_(0, 1)
    layout = torch.channels_last
    return frame.contiguous(memory_format=layout), both[count:].contiguous(memory_format=layout), kinds.long()


def mixed_primaries(rng: np.random.Generator) -> np.ndarray:
    """A float32 (3, 3) matrix whose rows sum to 1: the colours of a crop change, its greys do not."""
    matrix: npt.NDArray[np.floating] = np.eye(3, dtype=np.float32)
    if rng.random() < 0.5:
        share = float(rng.uniform(0.0, 0.5))
        matrix = (1 - share) * matrix[rng.permutation(3)] + share * rng.dirichlet(np.ones(3), 3)
    return matrix.astype(np.float32)
