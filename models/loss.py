"""The product network's loss: restoration, typed mask and presence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.recipe import LossSettings

_STRONGEST = 48  # pixels that decide whether a kind is present in a crop


def product_loss(
    restoration: Tensor, logits: Tensor, second: Tensor, kinds: Tensor, settings: LossSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of the terms, and the terms.

    ``restoration`` and ``second`` (N, 3, H, W) in [0, 1]; ``logits`` (N, 1 + K, H, W); ``kinds`` int64 (N, H, W), 0
    background.
    """
    terms = {
        "restoration": restoration_loss(restoration, second, kinds > 0, settings.marked),
        "cross_entropy": focal_cross_entropy(logits, kinds, settings.kind_weight, settings.focus),
        "dice": dice_loss(logits, kinds),
        "presence": presence_loss(logits, kinds),
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


def focal_cross_entropy(logits: Tensor, kinds: Tensor, kind_weight: float, focus: float) -> Tensor:
    """Cross-entropy with easy pixels weighted down (Lin et al. 2017): the mean over the kinds in the batch of each
    kind's mean, so that a filled colour box does not drown an arrow, and the background's sum on the scale of the
    marked pixels."""
    plain = functional.cross_entropy(logits, kinds, reduction="none")
    focal = plain * (1 - torch.exp(-plain)).clamp(min=1e-6) ** focus
    count = torch.bincount(kinds.flatten(), minlength=logits.shape[1])
    total = torch.zeros(logits.shape[1], device=logits.device).index_add_(0, kinds.flatten(), focal.flatten())
    there = (count[1:] > 0).sum().clamp(min=1)
    marked = (total[1:] / count[1:].clamp(min=1)).sum() / there
    background = total[0] / count[1:].sum().clamp(min=0.005 * kinds.numel())
    return kind_weight * marked + background


def dice_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """Soft Dice over the batch, mean of the kinds that are in it."""
    probability = logits.softmax(dim=1)[:, 1:]
    truth = functional.one_hot(kinds, logits.shape[1])[..., 1:].permute(0, 3, 1, 2).to(probability.dtype)
    overlap = 2 * (probability * truth).sum(dim=(0, 2, 3))
    size = probability.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    there = (truth.sum(dim=(0, 2, 3)) > 0).float()
    return ((1 - (overlap + 1) / (size + 1)) * there).sum() / there.sum().clamp(min=1)


def presence_loss(logits: Tensor, kinds: Tensor) -> Tensor:
    """Is the kind in the crop at all? The few strongest pixels answer, so each false speck on a clean crop costs."""
    probability = logits.softmax(dim=1)[:, 1:]
    strongest = probability.flatten(2).topk(_STRONGEST, dim=2).values.mean(dim=2).clamp(1e-4, 1 - 1e-4)
    truth = torch.stack([(kinds == kind).flatten(1).sum(dim=1) for kind in range(1, logits.shape[1])], dim=1)
    certain = ((truth == 0) | (truth >= _STRONGEST)).float()
    loss = functional.binary_cross_entropy(strongest, (truth > 0).float(), reduction="none")
    return (loss * certain).sum() / certain.sum().clamp(min=1)
