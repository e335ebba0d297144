"""The product network's loss: restoration, typed mask and presence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.recipe import LossSettings

_SLIVER = 60.0  # pixels of a kind in a batch at which it weighs half
_STRONGEST = 48  # pixels that decide whether a kind is present in a crop


def product_loss(
    restoration: Tensor, logits: Tensor, second: Tensor, kinds: Tensor, settings: LossSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the terms, and the terms.

    ``restoration`` and ``second`` (N, 3, H, W) in [0, 1]; ``logits`` (N, 1 + K, H, W); ``kinds`` int64 (N, H, W), 0
    background.
    """
    log_probability = functional.log_softmax(logits, dim=1)
    probability = log_probability.exp()
    of_truth = log_probability.gather(1, kinds[:, None])[:, 0]
    member = membership(kinds, logits.shape[1])
    count = member.sum(dim=1)
    terms = {
        "restoration": restoration_loss(restoration, second, kinds > 0, settings.marked),
        "cross_entropy": focal_cross_entropy(of_truth, member, count, settings.kind_weight, settings.focus),
        "dice": dice_loss(probability, of_truth, member, count),
        "presence": presence_loss(probability, kinds),
    }
    total = torch.stack([getattr(settings, name) * term for name, term in terms.items()]).sum()
    return total, terms


def restoration_loss(restoration: Tensor, second: Tensor, marked: Tensor, weight: float) -> Tensor:
    """L1 against the second noisy frame (Noise2Noise), averaged apart over marked and unmarked pixels.

    Averaged over the whole frame, L1 has a dead zone: marks are so few that doing nothing is the best answer until
    the network is more than half sure.
    """
    error = (restoration - second).abs().mean(dim=1)
    marked_ = marked.float()
    return (error * (1 - marked_)).sum() / (1 - marked_).sum().clamp(min=1) + weight * (
        error * marked_
    ).sum() / marked_.sum().clamp(min=1)


def membership(kinds: Tensor, planes: int) -> Tensor:
    """float32 (planes, pixels): 1 where a pixel of ``kinds`` (N, H, W) is of that kind. With it, sums over the pixels
    of each kind are products: scattered additions would be millions of atomic ones to six places."""
    return (kinds.flatten() == torch.arange(planes, device=kinds.device)[:, None]).float()


def focal_cross_entropy(of_truth: Tensor, member: Tensor, count: Tensor, kind_weight: float, focus: float) -> Tensor:
    """Cross-entropy with easy pixels weighted down (Lin et al. 2017): the mean over the kinds in the batch of each
    kind's mean, so that a filled colour box does not drown an arrow, and the background's sum on the scale of the
    marked pixels. A kind of which only a sliver is in the batch weighs less: its mean is mostly chance.

    ``of_truth`` (N, H, W) is the log-probability of each pixel's true kind, ``member`` its `membership` and ``count``
    (1 + K,) the pixels of each kind.
    """
    focal = -of_truth * (1 - of_truth.exp()).clamp(min=1e-6) ** focus
    total = member @ focal.flatten()
    weight = count[1:] / (count[1:] + _SLIVER)
    marked = (weight * total[1:] / count[1:].clamp(min=1)).sum() / weight.sum().clamp(min=1)
    background = total[0] / count[1:].sum().clamp(min=0.005 * of_truth.numel())
    return kind_weight * marked + background


def dice_loss(probability: Tensor, of_truth: Tensor, member: Tensor, count: Tensor) -> Tensor:
    """Soft Dice over the batch, mean of the kinds that are in it."""
    overlap = 2 * (member @ of_truth.exp().flatten())[1:]
    size = probability[:, 1:].sum(dim=(0, 2, 3)) + count[1:]
    there = (count[1:] > 0).float()
    return ((1 - (overlap + 1) / (size + 1)) * there).sum() / there.sum().clamp(min=1)


def presence_loss(probability: Tensor, kinds: Tensor) -> Tensor:
    """Is the kind in the crop at all? The few strongest pixels answer, so each false speck on a clean crop costs."""
    strongest = probability[:, 1:].flatten(2).topk(_STRONGEST, dim=2, sorted=False).values.mean(dim=2)
    truth = torch.stack([(kinds == kind).flatten(1).sum(dim=1) for kind in range(1, probability.shape[1])], dim=1)
    certain = ((truth == 0) | (truth >= _STRONGEST)).float()
    sure = strongest.clamp(1e-4, 1 - 1e-4)
    # Written out: torch's own refuses what is no number, where the training loop has a better word for it.
    loss = -torch.where(truth > 0, sure.log(), (1 - sure).log())
    return (loss * certain).sum() / certain.sum().clamp(min=1)
